//! A temporary folder that ends with the test process, together with everyone who works in it.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// A folder with a short path, and a watchdog process that removes it.
///
/// The watchdog holds the read end of a pipe from this process. When the pipe closes — the folder was
/// dropped, or this process ended, be it by `SIGKILL` — it kills each process whose working directory is
/// in the folder and then removes the folder. It makes the folder itself, so there is no moment at which
/// the folder exists unwatched.
pub struct Scratch {
    path: PathBuf,
    user: User,
    watchdog: Child,
}

impl Scratch {
    pub fn new(user: User) -> Self {
        Self::with_will(user, "", &[])
    }

    /// With shell commands that the watchdog runs first; they see `$folder` and the variables given.
    pub fn with_will(user: User, will: &str, variables: &[(&str, &str)]) -> Self {
        let mut watchdog = user
            .command(Path::new("sh"))
            .args(["-c", include_str!("watchdog.sh"), "keyward-watchdog", &parent(), will])
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell is always there");
        let mut path = String::new();
        let said = BufReader::new(watchdog.stdout.take().unwrap()).read_line(&mut path);
        assert!(said.is_ok_and(|bytes| bytes > 1), "no temporary folder can be made in /tmp");
        Self { path: path.trim_end().into(), user, watchdog }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Six letters that no other folder of the moment has.
    pub fn name(&self) -> &str {
        let name = self.path.file_name().unwrap().to_str().unwrap();
        name.strip_prefix("kw-").unwrap()
    }

    /// A command that runs in the folder, as its owner.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = self.user.command(program);
        command.current_dir(&self.path).stdin(Stdio::null());
        command
    }

    /// Names a server that works here, so that its shared memory is removed as well.
    pub fn remember(&self, server: u32) {
        let mut pipe = self.watchdog.stdin.as_ref().expect("closed only by drop");
        writeln!(pipe, "{server}").expect("the watchdog ignores every signal that could end it");
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(self.watchdog.stdin.take());
        let _ = self.watchdog.wait();
    }
}

/// Whom a server runs as.
#[derive(Clone, Copy)]
pub struct User(Option<(u32, u32)>);

impl User {
    pub fn current() -> Self {
        Self(None)
    }

    /// The current user; for root, which PostgreSQL refuses, `postgres` or else `nobody`.
    pub fn unprivileged() -> Self {
        if !rustix::process::getuid().is_root() {
            return Self::current();
        }
        let ids =
            ["postgres", "nobody"].iter().find_map(|user| Some((id("-u", user)?, id("-g", user)?)));
        Self(Some(ids.expect("every system has the user nobody")))
    }

    /// A command in a process group of its own: Ctrl-C reaches the tests alone.
    pub fn command(self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.process_group(0).current_dir("/");
        if let Some((uid, gid)) = self.0 {
            command.uid(uid).gid(gid);
        }
        command
    }
}

fn id(which: &str, user: &str) -> Option<u32> {
    let output = Command::new("id").args([which, user]).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

/// Where to make folders: a socket's path has to fit in 108 bytes.
fn parent() -> String {
    let wanted = std::env::temp_dir().to_string_lossy().into_owned();
    if wanted.len() <= 60 { wanted } else { "/tmp".into() }
}
