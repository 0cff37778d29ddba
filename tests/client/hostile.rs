use std::{
    collections::HashSet,
    env, fs,
    os::unix::fs::{MetadataExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use keyward::client::Profile;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::support::{Person, key, mode, set_mode};

/// What the hostile process exchanges for the real thing.
struct Places {
    folder: PathBuf,
    /// A folder of the victim's own, where a file with a key must never appear, and a link to it.
    other: PathBuf,
    link: PathBuf,
    /// A folder that everybody can write to.
    open: PathBuf,
    /// A link to a file of the victim's own.
    file_link: PathBuf,
    stop: PathBuf,
}

impl Places {
    fn of(home: &Path) -> Self {
        let at = |name| home.join(name);
        Self {
            folder: at(".lua-cli"),
            other: at("other"),
            link: at("link"),
            open: at("open"),
            file_link: at("file_link"),
            stop: at("stop"),
        }
    }
}

#[test]
fn ten_thousand_swaps_of_the_path_lead_no_write_astray() {
    let person = Person::new().with_stored(&key());
    let places = Places::of(person.home());
    fs::create_dir(&places.other).unwrap();
    let precious = places.other.join("credentials");
    fs::write(&precious, "UNTOUCHED").unwrap();
    set_mode(&precious, 0o644);
    symlink(&places.other, &places.link).unwrap();
    fs::create_dir(&places.open).unwrap();
    set_mode(&places.open, 0o777);

    let mut hostile = Command::new(env::current_exe().unwrap())
        .args(["--exact", "client::hostile::swaps_the_path", "--ignored", "--nocapture", "--quiet"])
        .env(HOME, person.home())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let file = person.file();
    let (mut written, mut refused) = (HashSet::new(), 0);
    while hostile.try_wait().unwrap().is_none() {
        let key = key();
        match file.save(&Profile::default(), &key) {
            Ok(_) => drop(written.insert(key.expose().to_owned())),
            Err(_) => refused += 1,
        }
        if let Ok(Some(stored)) = file.load(&Profile::default()) {
            assert_ne!(stored.text.as_str(), "UNTOUCHED");
        }
        if written.len() >= ENOUGH && refused >= ENOUGH {
            fs::write(&places.stop, "").unwrap();
        }
    }
    assert!(hostile.wait().unwrap().success(), "the hostile process saw a file that it could use");
    assert!(written.len() >= ENOUGH && refused >= ENOUGH, "{} {refused}", written.len());

    let names = |folder: &Path| -> Vec<_> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    };
    assert_eq!(names(&places.other), ["credentials"]);
    assert_eq!(fs::read_to_string(&precious).unwrap(), "UNTOUCHED");
    assert_eq!(mode(&precious), 0o644, "it was not even closed");
    assert!(names(&places.open).is_empty());
}

/// The hostile process: it can do all that the person can.
#[test]
#[ignore = "it is started by the test above"]
fn swaps_the_path() {
    let home = env::var_os(HOME).expect("only another test starts this one");
    let places = Places::of(Path::new(&home));
    let file = places.folder.join("credentials");
    let mut swaps = 0;
    while swaps < 10_000 || !places.stop.exists() {
        for instead in [&places.link, &places.open] {
            exchange(&places.folder, instead);
            nothing_to_be_seen(instead);
            nothing_to_be_seen(&places.folder);
            exchange(&places.folder, instead);
        }
        let _ = fs::remove_file(&places.file_link);
        symlink(places.other.join("credentials"), &places.file_link).unwrap();
        exchange(&file, &places.file_link);
        nothing_to_be_seen(&places.folder);
        exchange(&file, &places.file_link);
        nothing_to_be_seen(&places.folder);
        swaps += 6;
    }
}

fn exchange(one: &Path, other: &Path) {
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
}

/// No file in the folder can be read by others, and none is there if they can write to it.
fn nothing_to_be_seen(folder: &Path) {
    if fs::symlink_metadata(folder).unwrap().is_symlink() {
        return;
    }
    for entry in fs::read_dir(folder).unwrap() {
        // It may be gone again, by the writer's rename.
        let Ok(found) = entry.and_then(|entry| fs::symlink_metadata(entry.path())) else {
            continue;
        };
        assert!(found.is_symlink() || found.mode() & 0o077 == 0, "{:o}", found.mode());
        assert_eq!(mode(folder) & 0o022, 0, "a file in a folder that is open to all");
    }
}

/// As many writes and as many refusals prove that the two were at it together.
const ENOUGH: usize = 200;
const HOME: &str = "KEYWARD_TEST_HOME";
