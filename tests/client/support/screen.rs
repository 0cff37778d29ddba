use std::{
    io::{Read, Write},
    path::Path,
    process::Child,
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
};

use pty_process::blocking::{Command, Pts, Pty, open};
use rustix::termios::{LocalModes, tcgetattr};

use super::{Person, lua};
use crate::support::servers::until;

/// A program on a terminal of its own, and a person in front of it.
pub struct Screen {
    pty: Arc<Pty>,
    pts: Option<Pts>,
    seen: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
    child: Child,
}

impl Screen {
    pub fn start(person: &Person, arguments: &str) -> Self {
        Self::start_with(person, arguments, &[])
    }

    pub fn start_with(person: &Person, arguments: &str, variables: &[(&str, &str)]) -> Self {
        Self::of(&lua(), person, arguments, variables)
    }

    /// Of another program.
    pub fn of(
        program: &Path,
        person: &Person,
        arguments: &str,
        variables: &[(&str, &str)],
    ) -> Self {
        let (pty, pts) = open().unwrap();
        let mut command = Command::new(program)
            .args(arguments.split_whitespace())
            .env_clear()
            .envs(person.environment())
            .env("TERM", "xterm")
            .envs(variables.iter().copied())
            .current_dir(person.project());
        let child = command.spawn_borrowed(&pts).unwrap();
        let (pty, seen) = (Arc::new(pty), Arc::new(Mutex::new(String::new())));
        let (from, to) = (Arc::clone(&pty), Arc::clone(&seen));
        let reader = thread::spawn(move || {
            let mut bytes = [0; 4096];
            // The end of a terminal is an error on Linux.
            while let Ok(count @ 1..) = (&*from).read(&mut bytes) {
                to.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
        });
        Self { pty, pts: Some(pts), seen, reader: Some(reader), child }
    }

    pub fn shows(&self, text: &str) {
        until(&format!("the screen shows {text:?}"), || self.seen.lock().unwrap().contains(text));
    }

    pub fn types(&self, text: &str) {
        (&*self.pty).write_all(text.as_bytes()).unwrap();
    }

    pub fn echoes(&self) -> bool {
        tcgetattr(&*self.pty).unwrap().local_modes.contains(LocalModes::ECHO | LocalModes::ICANON)
    }

    /// All that was on the screen, after the program ended with this status, the terminal as it was before.
    #[track_caller]
    pub fn ends(mut self, status: i32) -> String {
        let mut ended = None;
        until("the program ends", || {
            ended = self.child.try_wait().unwrap();
            ended.is_some()
        });
        assert!(self.echoes(), "the terminal echoes again");
        drop(self.pts.take());
        self.reader.take().unwrap().join().unwrap();
        let seen = self.seen.lock().unwrap().clone();
        assert_eq!(ended.unwrap().code(), Some(status), "{seen}");
        seen
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
