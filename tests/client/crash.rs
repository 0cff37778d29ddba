use std::{
    collections::BTreeMap,
    fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use keyward::Secret;

use super::{
    files::only_the_file_is_there,
    support::{Person, key, lua, mode},
};
use crate::support::servers::skip;

/// Killed when it enters each of its system calls, in turn, the program leaves the old file or the new one.
#[test]
fn killed_at_every_system_call_the_file_is_whole() {
    let Some(strace) = strace() else { return skip("strace", "apt-get install strace") };
    let (old, new) = (key(), key());
    for (call, before, after) in [
        ("auth configure --api-key-stdin", Some(&old), Some(&new)),
        ("auth configure --api-key-stdin", None, Some(&new)),
        ("auth logout --force", Some(&old), None),
    ] {
        let victim = Victim { strace: &strace, call, input: &new, before, after };
        let kills = victim.calls();
        let (next, [unchanged, changed]) =
            (AtomicUsize::new(0), [(); 2].map(|()| AtomicUsize::new(0)));
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while let Some((name, n)) = kills.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let outcome =
                            if victim.killed_at(name, *n) { &changed } else { &unchanged };
                        outcome.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        let (unchanged, changed) = (unchanged.into_inner(), changed.into_inner());
        assert!(unchanged > 20 && changed > 2, "`{call}`: {unchanged} before, {changed} after");
    }
}

/// A power cut cannot be had in a test; that what it needs is done, and in this order, can be seen.
#[test]
fn the_file_is_synced_before_the_rename_and_the_folder_after() {
    let Some(strace) = strace() else { return skip("strace", "apt-get install strace") };
    let (call, new) = ("auth configure --api-key-stdin", key());
    let victim = Victim { strace: &strace, call, input: &new, before: None, after: Some(&new) };
    let calls: Vec<_> = victim.calls().into_iter().map(|(name, _)| name).collect();
    let made = calls.iter().position(|name| name == "mkdirat").expect("the folder is new");
    let calls = &calls[made..];
    let at = |name| calls.iter().position(|call| call == name).expect("it is called");
    assert_eq!(calls[1], "fsync", "the folder's own name is kept");
    let renamed = calls.iter().position(|name| name.starts_with("rename")).expect("it is renamed");
    assert_eq!(calls[renamed + 1], "fsync");
    let written = at("fchmod");
    assert!(written < renamed && calls[written..renamed].iter().any(|name| name == "fsync"));
}

struct Victim<'a> {
    strace: &'a Path,
    call: &'a str,
    input: &'a Secret,
    before: Option<&'a Secret>,
    after: Option<&'a Secret>,
}

impl Victim<'_> {
    fn person(&self) -> Person {
        self.before.into_iter().fold(Person::new(), Person::with_stored)
    }

    fn command(&self, person: &Person, options: &[&str]) -> Command {
        let mut command = person.command(self.strace);
        let input = person.home().join("input");
        fs::write(&input, self.input.expose()).unwrap();
        command.args(["-f", "-o"]).arg(person.home().join("trace")).args(options).arg(lua());
        command.args(self.call.split_whitespace());
        command.stdin(fs::File::open(input).unwrap()).stdout(Stdio::null());
        command
    }

    /// Every system call that the program makes: its name, and the how manieth of this name.
    fn calls(&self) -> Vec<(String, usize)> {
        let person = self.person();
        let output = self.command(&person, &[]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let trace = fs::read_to_string(person.home().join("trace")).unwrap();
        let mut counts = BTreeMap::<_, usize>::new();
        let mut calls = Vec::new();
        for line in trace.lines() {
            let name = line.split_whitespace().nth(1).and_then(|call| call.split_once('('));
            // The first is how `strace` starts the program.
            let Some((name, _)) = name.filter(|(name, _)| *name != "execve") else { continue };
            let count = counts.entry(name.to_owned()).or_default();
            *count += 1;
            calls.push((name.to_owned(), *count));
        }
        assert!(counts.contains_key("fsync"), "{counts:?}");
        calls
    }

    /// Whether the change had happened when it was killed.
    fn killed_at(&self, name: &str, n: usize) -> bool {
        let person = self.person();
        let inject = format!("inject={name}:signal=KILL:when={n}");
        let output = self.command(&person, &["-e", &inject]).output().unwrap();
        let at = format!("`{}` killed at {name} {n}", self.call);
        assert!(output.status.signal().is_some() || output.status.success(), "{at}: {output:?}");

        let stored = person.stored();
        let is = |key: Option<&Secret>| stored.as_deref() == key.map(Secret::expose);
        assert!(is(self.before) || is(self.after), "{at}: {stored:?}");
        let changed = is(self.after);
        for entry in fs::read_dir(person.folder()).into_iter().flatten() {
            assert_eq!(mode(&entry.unwrap().path()), 0o600, "{at}");
        }
        // The next writer works, and sweeps up.
        let next = key();
        let person = person.with_stored(&next);
        assert_eq!(person.stored().as_deref(), Some(next.expose()), "{at}");
        only_the_file_is_there(&person.folder());
        changed
    }
}

fn strace() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join("strace")).find(|path| path.is_file())
}
