use std::{
    collections::HashSet,
    env, fs,
    os::unix::fs::{DirBuilderExt, MetadataExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use keyward::client::{CredentialsFile, Profile};

use super::support::{Person, key, mode, set_mode};

/// The folder as the hostile process finds it, and what it puts in its place.
struct Places {
    folder: PathBuf,
    aside: PathBuf,
    /// A folder of the victim's own, where a file with a key must never appear.
    other: PathBuf,
    /// A folder that everybody can write to.
    open: PathBuf,
    stop: PathBuf,
}

impl Places {
    fn of(home: &Path) -> Self {
        let at = |name| home.join(name);
        Self {
            folder: at(".lua-cli"),
            aside: at("aside"),
            other: at("other"),
            open: at("open"),
            stop: at("stop"),
        }
    }
}

#[test]
fn ten_thousand_swaps_of_the_path_lead_no_write_astray() {
    let person = Person::new().with_stored(&key());
    let places = Places::of(person.home());
    fs::create_dir(&places.other).unwrap();
    fs::write(places.other.join("credentials"), "UNTOUCHED").unwrap();
    set_mode(&places.other.join("credentials"), 0o644);
    fs::DirBuilder::new().mode(0o700).create(&places.open).unwrap();
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
        // Whatever is read was written by this program, or is refused.
        if let Ok(Some(stored)) = file.load(&Profile::default()) {
            assert_ne!(stored.text.as_str(), "UNTOUCHED");
        }
        if written.len() >= 200 && refused >= 200 {
            fs::write(&places.stop, "").unwrap();
        }
    }
    assert!(hostile.wait().unwrap().success(), "the hostile process saw a file that it could use");
    assert!(written.len() >= 200 && refused >= 200, "{} {refused}", written.len());

    let names = |folder: &Path| -> Vec<_> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    };
    assert_eq!(names(&places.other), ["credentials"]);
    assert_eq!(fs::read_to_string(places.other.join("credentials")).unwrap(), "UNTOUCHED");
    assert_eq!(mode(&places.other.join("credentials")), 0o644, "it was not even closed");
    assert!(names(&places.open).is_empty());
}

/// The hostile process: it can do all that the person can.
#[test]
#[ignore = "it is started by the test above"]
fn swaps_the_path() {
    let places =
        Places::of(Path::new(&env::var_os(HOME).expect("only another test starts this one")));
    let file = |folder: &Path| CredentialsFile::in_folder(folder).path().to_owned();
    let link = places.folder.with_extension("link");
    let mut swaps = 0;
    while swaps < 10_000 || !places.stop.exists() {
        // The folder is moved away, and a link, or a folder that is open to all, put there.
        fs::rename(&places.folder, &places.aside).unwrap();
        if swaps % 2 == 0 {
            symlink(&places.other, &places.folder).unwrap();
            private(&places.aside);
            fs::remove_file(&places.folder).unwrap();
        } else {
            let moved = fs::rename(&places.open, &places.folder);
            private(&places.aside);
            if moved.is_ok() {
                fs::rename(&places.folder, &places.open).unwrap();
            }
        }
        private(&places.open);
        // Between the two, the writer may have made a folder of its own.
        let _ = fs::remove_dir_all(&places.folder);
        fs::rename(&places.aside, &places.folder).unwrap();
        // Then the file is replaced by a link to another one.
        symlink(file(&places.other), &link).unwrap();
        fs::rename(&link, file(&places.folder)).unwrap();
        private(&places.folder);
        if fs::symlink_metadata(file(&places.folder)).is_ok_and(|found| found.is_symlink()) {
            let _ = fs::remove_file(file(&places.folder));
        }
        swaps += 2;
    }
}

/// No file in the folder can be read by others, and none that came there is in a folder open to all.
fn private(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        // It may be gone again, by the writer's rename.
        let Ok(found) = entry.and_then(|entry| fs::symlink_metadata(entry.path())) else {
            continue;
        };
        assert!(found.is_symlink() || found.mode() & 0o077 == 0, "{:o}", found.mode());
        assert_eq!(mode(folder) & 0o022, 0, "a file in a folder that is open to all");
    }
}

const HOME: &str = "KEYWARD_TEST_HOME";
