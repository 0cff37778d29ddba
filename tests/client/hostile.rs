use std::{
    collections::HashSet,
    env, fs,
    os::unix::fs::{MetadataExt, symlink},
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
};

use keyward::client::Profile;
use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    process::{Signal, getppid, set_parent_process_death_signal},
};

use super::support::{TestUser, key, mode, set_mode};

/// The paths that the attacker swaps.
struct AttackPaths {
    credentials_dir: PathBuf,
    /// A directory of the victim in which no key file may appear, and a link to it.
    other: PathBuf,
    link: PathBuf,
    /// A world-writable directory.
    open: PathBuf,
    /// A link to another file of the victim.
    file_link: PathBuf,
    stop: PathBuf,
}

impl AttackPaths {
    fn of(home: &Path) -> Self {
        let at = |name| home.join(name);
        Self {
            credentials_dir: at(".lua-cli"),
            other: at("other"),
            link: at("link"),
            open: at("open"),
            file_link: at("file_link"),
            stop: at("stop"),
        }
    }
}

#[test]
fn ten_thousand_path_swaps_redirect_no_write() {
    let user = TestUser::new().with_stored_key(&key());
    let paths = AttackPaths::of(user.home());
    fs::create_dir(&paths.other).unwrap();
    let precious = paths.other.join("credentials");
    fs::write(&precious, "UNTOUCHED").unwrap();
    set_mode(&precious, 0o644);
    symlink(&paths.other, &paths.link).unwrap();
    fs::create_dir(&paths.open).unwrap();
    set_mode(&paths.open, 0o777);

    let mut attacker = Command::new(env::current_exe().unwrap())
        .args([
            "--exact",
            "client::hostile::attacker_process",
            "--ignored",
            "--nocapture",
            "--quiet",
        ])
        .env(HOME, user.home())
        .env(PARENT, process::id().to_string())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let file = user.credentials_file();
    let (mut written, mut rejected) = (HashSet::new(), 0);
    while attacker.try_wait().unwrap().is_none() {
        let key = key();
        match file.save(&Profile::default(), &key) {
            Ok(_) => drop(written.insert(key.expose().to_owned())),
            Err(_) => rejected += 1,
        }
        if let Ok(Some(stored)) = file.load(&Profile::default()) {
            assert_ne!(stored.text.as_str(), "UNTOUCHED");
        }
        if written.len() >= MIN_OUTCOMES && rejected >= MIN_OUTCOMES {
            fs::write(&paths.stop, "").unwrap();
        }
    }
    assert!(attacker.wait().unwrap().success(), "the attacker gained access to a file");
    assert!(
        written.len() >= MIN_OUTCOMES && rejected >= MIN_OUTCOMES,
        "{} {rejected}",
        written.len()
    );

    let names = |folder: &Path| -> Vec<_> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    };
    assert_eq!(names(&paths.other), ["credentials"]);
    assert_eq!(fs::read_to_string(&precious).unwrap(), "UNTOUCHED");
    assert_eq!(mode(&precious), 0o644, "its mode was not changed");
    assert!(names(&paths.open).is_empty());
}

/// The attacker runs as the same user.
#[test]
#[ignore = "started by the test above"]
fn attacker_process() {
    let home = env::var_os(HOME).expect("this test is started by another test");
    die_with_the_parent();
    let paths = AttackPaths::of(Path::new(&home));
    let file = paths.credentials_dir.join("credentials");
    let mut swaps = 0;
    while swaps < 10_000 || !paths.stop.exists() {
        for instead in [&paths.link, &paths.open] {
            exchange(&paths.credentials_dir, instead);
            assert_no_exposed_file(instead);
            assert_no_exposed_file(&paths.credentials_dir);
            exchange(&paths.credentials_dir, instead);
        }
        let _ = fs::remove_file(&paths.file_link);
        symlink(paths.other.join("credentials"), &paths.file_link).unwrap();
        exchange(&file, &paths.file_link);
        assert_no_exposed_file(&paths.credentials_dir);
        exchange(&file, &paths.file_link);
        assert_no_exposed_file(&paths.credentials_dir);
        swaps += 6;
    }
}

/// Without it, this process would outlive a suite that is killed.
fn die_with_the_parent() {
    set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
    // A parent that ended before this call sends no signal.
    let parent = getppid().map(|pid| pid.as_raw_nonzero().to_string());
    assert_eq!(parent, env::var(PARENT).ok(), "the parent has ended already");
}

fn exchange(one: &Path, other: &Path) {
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
}

/// Asserts that no file in the directory is readable by others, and that there is none if others can write
/// to the directory.
fn assert_no_exposed_file(folder: &Path) {
    if fs::symlink_metadata(folder).unwrap().is_symlink() {
        return;
    }
    for entry in fs::read_dir(folder).unwrap() {
        // The writer may have renamed it meanwhile.
        let Ok(found) = entry.and_then(|entry| fs::symlink_metadata(entry.path())) else {
            continue;
        };
        assert!(found.is_symlink() || found.mode() & 0o077 == 0, "{:o}", found.mode());
        assert_eq!(mode(folder) & 0o022, 0, "a file in a directory that others can write to");
    }
}

/// The minimum number of writes and of rejections, which shows that both processes ran concurrently.
const MIN_OUTCOMES: usize = 200;
const HOME: &str = "KEYWARD_TEST_HOME";
const PARENT: &str = "KEYWARD_TEST_PARENT";
