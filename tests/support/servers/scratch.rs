//! A temporary folder that is removed, with all processes that run in it, when the test process ends.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// A folder with a short path, and a watchdog process that removes it.
///
/// The watchdog reads from a pipe of this process. When the pipe closes, because the `Scratch` was dropped or
/// this process ended (even by `SIGKILL`), the watchdog kills all processes whose working directory is in the
/// folder, and removes the folder. The watchdog also creates the folder, so the folder never exists without a
/// watchdog.
pub struct Scratch {
    path: PathBuf,
    user: User,
    watchdog: Child,
}

impl Scratch {
    pub fn new(user: User) -> Self {
        Self::with_cleanup(user, "", &[])
    }

    /// Creates a folder with cleanup commands, which the watchdog runs first in a shell. The commands can use
    /// `$folder` and the given variables.
    pub fn with_cleanup(user: User, cleanup: &str, variables: &[(&str, &str)]) -> Self {
        let mut watchdog = user
            .command(Path::new("sh"))
            .args(["-c", include_str!("watchdog.sh"), "keyward-watchdog", &parent(), cleanup])
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("`sh` is installed");
        let mut path = String::new();
        let read = BufReader::new(watchdog.stdout.take().unwrap()).read_line(&mut path);
        assert!(read.is_ok_and(|bytes| bytes > 1), "cannot create a temporary folder in /tmp");
        Self { path: path.trim_end().into(), user, watchdog }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the six characters that distinguish the folder from all others that exist now.
    pub fn name(&self) -> &str {
        let name = self.path.file_name().unwrap().to_str().unwrap();
        name.strip_prefix("kw-").unwrap()
    }

    /// Returns a command that runs in the folder, as its owner.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = self.user.command(program);
        command.current_dir(&self.path).stdin(Stdio::null());
        command
    }

    /// Registers a server that runs in the folder, so that its shared memory is removed as well.
    pub fn remember(&self, server: u32) {
        let mut pipe = self.watchdog.stdin.as_ref().expect("closed only by drop");
        writeln!(pipe, "{server}").expect("the watchdog ignores signals");
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(self.watchdog.stdin.take());
        let _ = self.watchdog.wait();
    }
}

/// The operating system user that a server runs as.
#[derive(Clone, Copy)]
pub struct User(Option<(u32, u32)>);

impl User {
    pub fn current() -> Self {
        Self(None)
    }

    /// Returns the current user. If that is root, which PostgreSQL refuses to run as, returns `postgres` or
    /// `nobody`.
    pub fn unprivileged() -> Self {
        if !rustix::process::getuid().is_root() {
            return Self::current();
        }
        let ids =
            ["postgres", "nobody"].iter().find_map(|user| Some((id("-u", user)?, id("-g", user)?)));
        Self(Some(ids.expect("every system has the user nobody")))
    }

    /// Returns a command in a process group of its own, so that Ctrl-C reaches only the tests.
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

/// Returns a short parent folder: the path of a Unix socket is limited to 108 bytes.
fn parent() -> String {
    let default = std::env::temp_dir().to_string_lossy().into_owned();
    if default.len() <= 60 { default } else { "/tmp".into() }
}
