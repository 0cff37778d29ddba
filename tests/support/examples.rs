//! Builds and runs the programs in `examples/`: `cargo test -p keyward-tests --test suite` alone does not build them.

use std::{
    collections::HashMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
};

use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};

use super::servers::{Scratch, User, process::Process, until};

/// Builds an example from the working tree, once, and returns the path of its binary.
pub fn example(name: &'static str) -> PathBuf {
    static BUILT: Mutex<Option<HashMap<&str, PathBuf>>> = Mutex::new(None);
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    let built = built.get_or_insert_default();
    built.entry(name).or_insert_with(|| build(name)).clone()
}

fn build(name: &str) -> PathBuf {
    let test = env::current_exe().unwrap();
    let profile = test.ancestors().nth(2).unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "-p", "keyward-tests", "--example", name]);
    cargo.arg("--target-dir").arg(profile.parent().unwrap());
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    // `ring` rebuilds when the variables change that cargo sets for this process, and so would all crates
    // that depend on it.
    for (name, _) in env::vars_os() {
        let set_by_cargo =
            |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
        if name.to_str().is_some_and(set_by_cargo) {
            cargo.env_remove(name);
        }
    }
    let built = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    profile.join("examples").join(name)
}

/// A running example server in a folder of its own. It is killed when this is dropped or the test process
/// ends.
pub struct Serving {
    process: Process,
    log: PathBuf,
    url: String,
}

impl Serving {
    /// Starts the example on a free port.
    pub fn start(name: &'static str, arguments: &[&str]) -> Self {
        let scratch = Scratch::new(User::current());
        let log = scratch.path().join("server.log");
        let arguments = [&["--listen", "127.0.0.1:0"], arguments].concat();
        let arguments = arguments.into_iter().map(str::to_owned).collect();
        let ready = |_| url(&log).is_some();
        let process = Process::start(scratch, &example(name), arguments, ready);
        let process = process.unwrap_or_else(|log| panic!("{name} does not start:\n{log}"));
        let url = url(&log).expect("readiness means that the URL is printed");
        Self { process, log, url }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Sends `SIGINT`, like Ctrl-C, and asserts that the server shuts down cleanly.
    pub fn stop(self) {
        self.stop_with(Signal::INT);
    }

    pub fn stop_with(mut self, signal: Signal) {
        assert!(self.process.stop(signal).success(), "{}", self.printed());
    }

    /// Sets how many files the server may have open (`ulimit -n`).
    pub fn limit_files(&self, files: u64) {
        let pid = Pid::from_raw(self.process.pid() as i32).unwrap();
        let limit = Rlimit { current: Some(files), maximum: Some(files) };
        prlimit(Some(pid), Resource::Nofile, limit).unwrap();
    }

    /// Returns the number of files that the server has open.
    #[cfg(target_os = "linux")]
    pub fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.process.pid())).unwrap().count()
    }

    /// Returns everything printed so far.
    pub fn printed(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until `find` finds something in the output, and returns it.
    pub fn prints<T>(&self, what: &str, find: impl Fn(&str) -> Option<T>) -> T {
        let mut found = None;
        until(what, || {
            found = find(&self.printed());
            found.is_some()
        });
        found.unwrap()
    }
}

/// Returns the URL in the first line of the output, once the line is complete.
fn url(log: &Path) -> Option<String> {
    let printed = fs::read_to_string(log).ok()?;
    let (line, _) = printed.split_once('\n')?;
    line.split(' ').find(|word| word.starts_with("http://")).map(str::to_owned)
}
