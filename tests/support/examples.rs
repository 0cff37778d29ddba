//! The programs of `examples/`, as programs: `cargo test --test suite` alone builds none of them.

use std::{
    collections::HashMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
};

use rustix::process::Signal;

use super::servers::{Scratch, User, process::Process, until};

/// Where an example is, built from what is in the working tree.
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
    cargo.args(["build", "--quiet", "--all-features", "--example", name]);
    cargo.arg("--target-dir").arg(profile.parent().unwrap());
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    // What cargo says to this process, `ring` takes for a change: it and all above it would be built again.
    for (name, _) in env::vars_os() {
        let said =
            |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
        if name.to_str().is_some_and(said) {
            cargo.env_remove(name);
        }
    }
    let built = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    profile.join("examples").join(name)
}

/// An example that serves, in a folder of its own; it ends with this, or with the test process.
pub struct Serving {
    process: Process,
    log: PathBuf,
    url: String,
}

impl Serving {
    /// Starts it on a free port.
    pub fn start(name: &'static str, arguments: &[&str]) -> Self {
        let scratch = Scratch::new(User::current());
        let log = scratch.path().join("server.log");
        let arguments = [&["--listen", "127.0.0.1:0"], arguments].concat();
        let arguments = arguments.into_iter().map(str::to_owned).collect();
        let ready = |_| url(&log).is_some();
        let process = Process::start(scratch, &example(name), arguments, ready);
        let process = process.unwrap_or_else(|log| panic!("{name} does not start:\n{log}"));
        let url = url(&log).expect("it was there when it was ready");
        Self { process, log, url }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Ends it as an operator does by Ctrl-C: it writes what it has to write.
    pub fn stop(mut self) {
        assert!(self.process.stop(Signal::INT).success(), "{}", self.printed());
    }

    /// What it has printed.
    pub fn printed(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// The first thing that is found in what it prints, as soon as it is.
    pub fn prints<T>(&self, what: &str, find: impl Fn(&str) -> Option<T>) -> T {
        let mut found = None;
        until(what, || {
            found = find(&self.printed());
            found.is_some()
        });
        found.unwrap()
    }
}

/// In the first line of what it prints, once that is whole.
fn url(log: &Path) -> Option<String> {
    let printed = fs::read_to_string(log).ok()?;
    let (line, _) = printed.split_once('\n')?;
    line.split(' ').find(|word| word.starts_with("http://")).map(str::to_owned)
}
