//! A server process that a test can kill, stop, freeze and restart.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, ExitStatus},
};

use rustix::process::{Pid, Signal, kill_process};

use super::{Scratch, holds_within_deadline, until};

/// A server in a folder of its own. The server and its children are killed when this is dropped.
pub struct Process {
    // Dropped first: its watchdog kills the server, so that the child can be reaped.
    scratch: Option<Scratch>,
    program: PathBuf,
    arguments: Vec<String>,
    child: Child,
}

impl Process {
    /// Starts a server and waits until it is ready. Returns its log if it exits or is not ready in time.
    pub fn start(
        scratch: Scratch,
        program: &Path,
        arguments: Vec<String>,
        ready: impl Fn(u32) -> bool,
    ) -> Result<Self, String> {
        let child = spawn(&scratch, program, &arguments);
        let mut process =
            Self { scratch: Some(scratch), program: program.into(), arguments, child };
        process.until_ready(ready).map(|()| process)
    }

    pub fn folder(&self) -> &Path {
        self.scratch().path()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Starts the server again, in the same folder with the same arguments.
    pub fn restart(&mut self, ready: impl Fn(u32) -> bool) {
        assert!(self.ended(), "the server still runs: kill or stop it first");
        self.child = spawn(self.scratch(), &self.program, &self.arguments);
        if let Err(log) = self.until_ready(ready) {
            panic!("{} does not start again:\n{log}", self.program.display());
        }
    }

    /// Sends `SIGKILL` to the server and its children, and waits until they are gone.
    pub fn kill(&mut self) {
        let family = self.halt_family();
        for pid in &family {
            signal(*pid, Signal::KILL);
        }
        let _ = self.child.wait();
        until("the killed server's children are gone", || !family.iter().any(|pid| is_alive(*pid)));
    }

    /// Sends a signal that shuts the server down, and waits until it has exited.
    pub fn stop(&mut self, shutdown: Signal) -> ExitStatus {
        signal(self.pid(), shutdown);
        until("the stopped server has exited", || self.ended());
        self.child.wait().expect("a child of this process")
    }

    /// Sends `SIGSTOP` to the server and its children. Connections stay open, but get no response.
    pub fn freeze(&self) {
        for pid in self.halt_family() {
            signal(pid, Signal::STOP);
        }
    }

    pub fn thaw(&self) {
        for pid in family(self.pid()) {
            signal(pid, Signal::CONT);
        }
    }

    /// Stops the parent first, so that it cannot start further children.
    fn halt_family(&self) -> Vec<u32> {
        signal(self.pid(), Signal::STOP);
        until("the server has stopped", || matches!(state(self.pid()), None | Some('T' | 'Z')));
        family(self.pid())
    }

    fn until_ready(&mut self, ready: impl Fn(u32) -> bool) -> Result<(), String> {
        let pid = self.pid();
        if holds_within_deadline(|| ready(pid) || self.ended()) && !self.ended() {
            return Ok(());
        }
        Err(fs::read_to_string(self.folder().join(LOG)).unwrap_or_default())
    }

    fn ended(&mut self) -> bool {
        self.child.try_wait().expect("a child of this process").is_some()
    }

    fn scratch(&self) -> &Scratch {
        self.scratch.as_ref().expect("`None` only during drop")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.scratch.take());
        let _ = self.child.wait();
    }
}

/// Returns whether a process is running. A zombie is not running.
pub fn is_alive(pid: u32) -> bool {
    !matches!(state(pid), None | Some('Z' | 'X'))
}

/// Returns whether a process was stopped by a signal.
pub fn is_stopped(pid: u32) -> bool {
    state(pid) == Some('T')
}

fn spawn(scratch: &Scratch, program: &Path, arguments: &[String]) -> Child {
    let log = File::options().create(true).append(true).open(scratch.path().join(LOG)).unwrap();
    let child = scratch
        .command(program)
        .args(arguments)
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    scratch.remember(child.id());
    child
}

/// Sends a signal; a process that no longer exists is ignored.
fn signal(pid: u32, signal: Signal) {
    let _ = kill_process(Pid::from_raw(pid.cast_signed()).expect("no process has id 0"), signal);
}

/// Returns a process and its children. A process group would not contain PostgreSQL's children, which have
/// sessions of their own.
fn family(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").expect("these tests need Linux's /proc");
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let children = pids.filter(|pid| stat(*pid).is_some_and(|(_, ppid)| ppid == parent));
    [parent].into_iter().chain(children).collect()
}

fn state(pid: u32) -> Option<char> {
    stat(pid).map(|(state, _)| state)
}

/// Returns state and parent: the two fields after the name, which is in parentheses.
fn stat(pid: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

const LOG: &str = "server.log";
