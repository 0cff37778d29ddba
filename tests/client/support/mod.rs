mod auth_server;
mod terminal;

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use keyward::{
    KeyFormat, Secret,
    client::{CredentialsFile, Profile},
};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::examples::example;

pub use auth_server::{AuthServer, REFUSED_EMAIL};
pub use terminal::Terminal;

/// A user with a home directory, a project directory and environment variables.
pub struct TestUser {
    home: TempDir,
    env_var: Option<String>,
    api_url: String,
}

/// The exit status and output of a program.
pub struct CommandResult {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl TestUser {
    pub fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("project")).unwrap();
        // No server listens on this port.
        Self { home, env_var: None, api_url: "http://127.0.0.1:1".into() }
    }

    pub fn with_server(server: &AuthServer) -> Self {
        Self::with_server_url(&server.url())
    }

    pub fn with_server_url(url: &str) -> Self {
        Self { api_url: url.to_owned(), ..Self::new() }
    }

    pub fn with_env_var(mut self, value: &str) -> Self {
        self.env_var = Some(value.to_owned());
        self
    }

    pub fn with_stored_key(self, key: &Secret) -> Self {
        self.credentials_file().save(&Profile::default(), key).unwrap();
        self
    }

    pub fn with_dotenv(self, text: &str) -> Self {
        fs::write(self.project().join(".env"), text).unwrap();
        self
    }

    pub fn home(&self) -> &Path {
        self.home.path()
    }

    pub fn project(&self) -> PathBuf {
        self.home().join("project")
    }

    pub fn credentials_dir(&self) -> PathBuf {
        self.home().join(".lua-cli")
    }

    pub fn credentials_file(&self) -> CredentialsFile {
        CredentialsFile::in_dir(self.credentials_dir())
    }

    pub fn stored_key(&self) -> Option<String> {
        self.credentials_file()
            .load(&Profile::default())
            .unwrap()
            .map(|stored| stored.text.to_string())
    }

    /// Returns the environment of the user's programs. Nothing is inherited from this process.
    pub fn environment(&self) -> Vec<(&str, String)> {
        let home = self.home().to_str().unwrap().to_owned();
        let mut all = vec![("HOME", home), ("LUA_API_URL", self.api_url.clone())];
        all.extend(self.env_var.clone().map(|value| ("LUA_API_KEY", value)));
        all
    }

    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().envs(self.environment()).current_dir(self.project());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs `lua_cli`.
    pub fn lua(&self, arguments: &str) -> CommandResult {
        self.lua_with_stdin(arguments, "")
    }

    pub fn lua_with_stdin(&self, arguments: &str, input: &str) -> CommandResult {
        let mut command = self.command(lua());
        let mut child =
            command.args(arguments.split_whitespace()).stdin(Stdio::piped()).spawn().unwrap();
        // A program may exit before it reads its input.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap().into()
    }

    pub fn json(&self, arguments: &str) -> Value {
        let result = self.lua(&format!("{arguments} --json"));
        assert_eq!(result.stderr, "", "with --json, stderr is empty");
        serde_json::from_str(&result.stdout).unwrap()
    }
}

impl From<Output> for CommandResult {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let status = output.status.code().expect("the program was not killed by a signal");
        Self { status, stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

impl CommandResult {
    /// Asserts the exit status, an empty standard output, and part of standard error.
    #[track_caller]
    pub fn assert_fails(&self, status: i32, because: &str) {
        assert_eq!((self.status, &*self.stdout), (status, ""), "{}", self.stderr);
        assert!(self.stderr.contains(because), "not {because:?}: {}", self.stderr);
    }
}

pub fn key() -> Secret {
    format().generate().unwrap()
}

pub fn format() -> KeyFormat {
    KeyFormat::builder("lk").build().unwrap()
}

pub fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

pub fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// The path of `lua_cli`.
pub fn lua() -> PathBuf {
    example("lua_cli")
}
