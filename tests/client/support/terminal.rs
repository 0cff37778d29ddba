use std::{
    io::{Read, Write},
    path::Path,
    process::Child,
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
};

use pty_process::blocking::{Command, Pts, Pty, open};
use rustix::termios::{InputModes, LocalModes, OptionalActions, tcgetattr, tcsetattr};

use super::{TestUser, lua};
use crate::support::servers::until;

/// A program in its own pseudo-terminal, and the user's input and output.
pub struct Terminal {
    pty: Arc<Pty>,
    pts: Option<Pts>,
    seen: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
    child: Child,
}

impl Terminal {
    pub fn start(user: &TestUser, arguments: &str) -> Self {
        Self::start_with(user, arguments, &[])
    }

    pub fn start_with(user: &TestUser, arguments: &str, variables: &[(&str, &str)]) -> Self {
        Self::start_program(&lua(), user, arguments, variables)
    }

    pub fn start_program(
        program: &Path,
        user: &TestUser,
        arguments: &str,
        variables: &[(&str, &str)],
    ) -> Self {
        let (pty, pts) = open().unwrap();
        // As terminal emulators do: backspace erases a whole UTF-8 character.
        let mut modes = tcgetattr(&pty).unwrap();
        modes.input_modes |= InputModes::IUTF8;
        tcsetattr(&pty, OptionalActions::Now, &modes).unwrap();
        let mut command = Command::new(program)
            .args(arguments.split_whitespace())
            .env_clear()
            .envs(user.environment())
            .env("TERM", "xterm")
            .envs(variables.iter().copied())
            .current_dir(user.project());
        let child = command.spawn_borrowed(&pts).unwrap();
        let (pty, seen) = (Arc::new(pty), Arc::new(Mutex::new(String::new())));
        let (from, to) = (Arc::clone(&pty), Arc::clone(&seen));
        let reader = thread::spawn(move || {
            let mut bytes = [0; 4096];
            // On Linux, reading a closed terminal fails.
            while let Ok(count @ 1..) = (&*from).read(&mut bytes) {
                to.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
        });
        Self { pty, pts: Some(pts), seen, reader: Some(reader), child }
    }

    pub fn wait_for(&self, text: &str) {
        until(&format!("the terminal to show {text:?}"), || {
            self.seen.lock().unwrap().contains(text)
        });
    }

    pub fn type_text(&self, text: &str) {
        (&*self.pty).write_all(text.as_bytes()).unwrap();
    }

    pub fn is_echoing(&self) -> bool {
        tcgetattr(&*self.pty).unwrap().local_modes.contains(LocalModes::ECHO | LocalModes::ICANON)
    }

    /// Waits for the program to exit with this status and returns its output. Asserts that echo is restored.
    #[track_caller]
    pub fn wait_for_exit(mut self, status: i32) -> String {
        let mut ended = None;
        until("the program to exit", || {
            ended = self.child.try_wait().unwrap();
            ended.is_some()
        });
        assert!(self.is_echoing(), "echo is restored");
        drop(self.pts.take());
        self.reader.take().unwrap().join().unwrap();
        let seen = self.seen.lock().unwrap().clone();
        assert_eq!(ended.unwrap().code(), Some(status), "{seen}");
        seen
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
