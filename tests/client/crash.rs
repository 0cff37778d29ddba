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
    files::assert_only_credentials_file,
    support::{TestUser, key, lua, mode},
};
use crate::support::servers::skip;

/// Kills the program at each of its system calls in turn. The old file or the new one must remain.
#[test]
fn a_kill_at_any_system_call_leaves_a_whole_file() {
    let Some(strace) = strace() else { return skip("strace", "apt-get install strace") };
    let (old, new) = (key(), key());
    for (call, before, after) in [
        ("auth configure --api-key-stdin", Some(&old), Some(&new)),
        ("auth configure --api-key-stdin", None, Some(&new)),
        ("auth logout --force", Some(&old), None),
    ] {
        let program = KilledProgram { strace: &strace, call, input: &new, before, after };
        let kills = program.calls();
        let (next, [unchanged, changed]) =
            (AtomicUsize::new(0), [(); 2].map(|()| AtomicUsize::new(0)));
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while let Some((name, n)) = kills.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let outcome =
                            if program.killed_at(name, *n) { &changed } else { &unchanged };
                        outcome.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        let (unchanged, changed) = (unchanged.into_inner(), changed.into_inner());
        assert!(unchanged > 20 && changed > 2, "`{call}`: {unchanged} before, {changed} after");
    }
}

/// A power failure cannot be tested here, but the order of the sync and rename calls can be checked.
#[test]
fn the_file_is_synced_before_the_rename_and_the_directory_after() {
    let Some(strace) = strace() else { return skip("strace", "apt-get install strace") };
    let (call, new) = ("auth configure --api-key-stdin", key());
    let program =
        KilledProgram { strace: &strace, call, input: &new, before: None, after: Some(&new) };
    let calls: Vec<_> = program.calls().into_iter().map(|(name, _)| name).collect();
    let made = calls.iter().position(|name| name == "mkdirat").expect("the directory is created");
    let calls = &calls[made..];
    let at = |name| calls.iter().position(|call| call == name).expect("the call is made");
    assert_eq!(calls[1], "fsync", "the parent directory is synced");
    let renamed =
        calls.iter().position(|name| name.starts_with("rename")).expect("the file is renamed");
    assert_eq!(calls[renamed + 1], "fsync");
    let written = at("fchmod");
    assert!(written < renamed && calls[written..renamed].iter().any(|name| name == "fsync"));
}

struct KilledProgram<'a> {
    strace: &'a Path,
    call: &'a str,
    input: &'a Secret,
    before: Option<&'a Secret>,
    after: Option<&'a Secret>,
}

impl KilledProgram<'_> {
    fn user(&self) -> TestUser {
        self.before.into_iter().fold(TestUser::new(), TestUser::with_stored_key)
    }

    fn command(&self, user: &TestUser, options: &[&str]) -> Command {
        let mut command = user.command(self.strace);
        let input = user.home().join("input");
        fs::write(&input, self.input.expose()).unwrap();
        command.args(["-f", "-o"]).arg(user.home().join("trace")).args(options).arg(lua());
        command.args(self.call.split_whitespace());
        command.stdin(fs::File::open(input).unwrap()).stdout(Stdio::null());
        command
    }

    /// Returns every system call that the program makes: its name, and its number among the calls of this name.
    fn calls(&self) -> Vec<(String, usize)> {
        let user = self.user();
        let output = self.command(&user, &[]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let trace = fs::read_to_string(user.home().join("trace")).unwrap();
        let mut counts = BTreeMap::<_, usize>::new();
        let mut calls = Vec::new();
        for line in trace.lines() {
            let name = line.split_whitespace().nth(1).and_then(|call| call.split_once('('));
            // `strace` starts the program with `execve`.
            let Some((name, _)) = name.filter(|(name, _)| *name != "execve") else { continue };
            let count = counts.entry(name.to_owned()).or_default();
            *count += 1;
            calls.push((name.to_owned(), *count));
        }
        assert!(counts.contains_key("fsync"), "{counts:?}");
        calls
    }

    /// Returns whether the change had happened when the program was killed.
    fn killed_at(&self, name: &str, n: usize) -> bool {
        let user = self.user();
        let inject = format!("inject={name}:signal=KILL:when={n}");
        let output = self.command(&user, &["-e", &inject]).output().unwrap();
        let at = format!("`{}` killed at {name} {n}", self.call);
        assert!(output.status.signal().is_some() || output.status.success(), "{at}: {output:?}");

        let stored = user.stored_key();
        let is = |key: Option<&Secret>| stored.as_deref() == key.map(Secret::expose);
        assert!(is(self.before) || is(self.after), "{at}: {stored:?}");
        let changed = is(self.after);
        for entry in fs::read_dir(user.credentials_dir()).into_iter().flatten() {
            assert_eq!(mode(&entry.unwrap().path()), 0o600, "{at}");
        }
        // The next writer succeeds and removes temporary files.
        let next = key();
        let user = user.with_stored_key(&next);
        assert_eq!(user.stored_key().as_deref(), Some(next.expose()), "{at}");
        assert_only_credentials_file(&user.credentials_dir());
        changed
    }
}

fn strace() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join("strace")).find(|path| path.is_file())
}
