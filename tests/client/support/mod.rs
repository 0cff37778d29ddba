mod api;
mod screen;

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

pub use api::Api;
pub use screen::Screen;

/// A person's home folder, and a project that she works in.
pub struct Person {
    home: TempDir,
    variable: Option<String>,
    api: String,
}

/// What a program said, and how it ended.
pub struct Said {
    pub status: i32,
    pub out: String,
    pub err: String,
}

impl Person {
    pub fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("project")).unwrap();
        // A port that nobody listens on.
        Self { home, variable: None, api: "http://127.0.0.1:1".into() }
    }

    pub fn of(api: &Api) -> Self {
        Self::at(&api.url())
    }

    /// Whose program talks to this server.
    pub fn at(url: &str) -> Self {
        Self { api: url.to_owned(), ..Self::new() }
    }

    pub fn with_variable(mut self, value: &str) -> Self {
        self.variable = Some(value.to_owned());
        self
    }

    pub fn with_stored(self, key: &Secret) -> Self {
        self.file().save(&Profile::default(), key).unwrap();
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

    pub fn folder(&self) -> PathBuf {
        self.home().join(".lua-cli")
    }

    pub fn file(&self) -> CredentialsFile {
        CredentialsFile::in_folder(self.folder())
    }

    pub fn stored(&self) -> Option<String> {
        self.file().load(&Profile::default()).unwrap().map(|stored| stored.text.to_string())
    }

    /// What she sees in her environment, and nothing of this process's own.
    pub fn environment(&self) -> Vec<(&str, String)> {
        let home = self.home().to_str().unwrap().to_owned();
        let mut all = vec![("HOME", home), ("LUA_API_URL", self.api.clone())];
        all.extend(self.variable.clone().map(|value| ("LUA_API_KEY", value)));
        all
    }

    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().envs(self.environment()).current_dir(self.project());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn lua(&self, arguments: &str) -> Said {
        self.lua_given(arguments, "")
    }

    /// With something on its standard input.
    pub fn lua_given(&self, arguments: &str, input: &str) -> Said {
        let mut command = self.command(lua());
        let mut child =
            command.args(arguments.split_whitespace()).stdin(Stdio::piped()).spawn().unwrap();
        // A program that ended before it read is no failure of the test.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap().into()
    }

    pub fn json(&self, arguments: &str) -> Value {
        let said = self.lua(&format!("{arguments} --json"));
        assert_eq!(said.err, "", "with --json there is nothing else");
        serde_json::from_str(&said.out).unwrap()
    }
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let status = output.status.code().expect("no signal ended it");
        Self { status, out: text(output.stdout), err: text(output.stderr) }
    }
}

impl Said {
    /// It ended so, and said this on standard error.
    #[track_caller]
    pub fn fails(&self, status: i32, because: &str) {
        assert_eq!((self.status, &*self.out), (status, ""), "{}", self.err);
        assert!(self.err.contains(because), "not {because:?}: {}", self.err);
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

/// The program.
pub fn lua() -> PathBuf {
    example("lua_cli")
}
