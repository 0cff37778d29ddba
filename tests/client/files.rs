use std::{
    fs,
    os::unix::fs::{chown, symlink},
    path::Path,
    process::Command,
    thread,
};

use keyward::client::{CredentialsFile, ErrorKind, Profile, Warning};

use super::support::{Person, key, mode, set_mode};

#[track_caller]
fn refused(file: &CredentialsFile, because: &str) {
    let profile = Profile::default();
    let before = fs::read(file.path()).ok();
    for error in [
        file.load(&profile).expect_err("it is not read"),
        file.save(&profile, &key()).expect_err("it is not written"),
        file.remove(&profile).expect_err("it is not removed"),
        file.prepare().expect_err("it is not promised"),
    ] {
        assert_eq!(error.kind(), ErrorKind::Unsafe, "{error}");
        assert!(error.to_string().contains(because), "{error}");
    }
    assert_eq!(fs::read(file.path()).ok(), before);
}

#[test]
fn it_is_private_whatever_the_umask() {
    for umask in ["000", "022", "077", "277"] {
        let (person, key) = (Person::new(), key());
        let script =
            format!("umask {umask}; exec \"$0\" auth configure --api-key-stdin <<< \"$1\"");
        let mut command: Command = person.command("bash");
        let command = command.arg("-c").arg(script).arg(super::support::lua()).arg(key.expose());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(mode(person.file().path()), 0o600, "umask {umask}");
        assert_eq!(mode(&person.folder()), 0o700, "umask {umask}");
    }
}

#[test]
fn a_file_that_others_can_read_is_closed_with_a_warning() {
    let (person, first) = (Person::new(), key());
    let person = person.with_stored(&first);
    let file = person.file();
    set_mode(file.path(), 0o644);
    let stored = file.load(&Profile::default()).unwrap().unwrap();
    assert!(matches!(stored.warning, Some(Warning::WasReadable { mode: 0o644, .. })), "{stored:?}");
    assert_eq!((mode(file.path()), stored.mode), (0o600, Some(0o600)));
    assert!(file.load(&Profile::default()).unwrap().unwrap().warning.is_none());

    set_mode(file.path(), 0o640);
    let said = person.lua_given("auth configure -", key().expose());
    assert!(said.err.contains("could be read by others (mode 0640)"), "{}", said.err);
    assert_eq!(mode(file.path()), 0o600);
}

#[test]
fn what_others_can_write_to_is_refused() {
    let (person, key) = (Person::new(), key());
    let person = person.with_stored(&key);
    for (path, right) in
        [(person.file().path(), 0o600), (&person.folder(), 0o700), (person.home(), 0o700)]
    {
        for others in [0o020, 0o002] {
            set_mode(path, right | others);
            refused(&person.file(), "can be written to by others");
        }
        set_mode(path, right);
    }
    set_mode(person.home(), 0o1777);
    assert!(person.stored().is_some(), "in a sticky folder others cannot move what is ours");
}

#[test]
fn links_are_refused() {
    let (person, key) = (Person::new(), key());
    let person = person.with_stored(&key);
    let (file, elsewhere) = (person.file(), person.home().join("elsewhere"));
    fs::rename(file.path(), &elsewhere).unwrap();
    symlink(&elsewhere, file.path()).unwrap();
    refused(&file, "is a symbolic link");
    assert!(fs::read_to_string(&elsewhere).unwrap().contains(key.expose()));

    fs::remove_file(file.path()).unwrap();
    fs::rename(person.folder(), &elsewhere).unwrap_err();
    fs::remove_file(&elsewhere).unwrap();
    fs::rename(person.folder(), &elsewhere).unwrap();
    symlink(&elsewhere, person.folder()).unwrap();
    refused(&file, "is no folder but a link");
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
}

#[test]
fn what_belongs_to_somebody_else_is_refused() {
    if !rustix::process::geteuid().is_root() {
        // Root's own folder will do: it is somebody else's.
        let error = CredentialsFile::in_folder("/usr/lib").load(&Profile::default()).unwrap_err();
        assert!(error.to_string().contains("belongs to somebody else"), "{error}");
        return;
    }
    let (person, key) = (Person::new(), key());
    let person = person.with_stored(&key);
    for path in [person.file().path(), &person.folder(), person.home()] {
        chown(path, Some(65_534), None).unwrap();
        refused(&person.file(), "belongs to somebody else");
        chown(path, Some(0), None).unwrap();
    }
    assert!(person.stored().is_some());
}

#[test]
fn what_is_no_file_is_refused() {
    let person = Person::new().with_stored(&key());
    let file = person.file();
    fs::remove_file(file.path()).unwrap();
    let made = Command::new("mkfifo").arg(file.path()).status().unwrap();
    assert!(made.success());
    let error = file.load(&Profile::default()).expect_err("and it is not waited for");
    assert!(error.to_string().contains("is no file"), "{error}");
    fs::remove_file(file.path()).unwrap();
    fs::write(file.path(), vec![b'x'; 100_000]).unwrap();
    set_mode(file.path(), 0o600);
    refused(&file, "is too long");
}

#[test]
fn eight_processes_write_at_once_and_none_is_lost() {
    let person = Person::new();
    let keys: Vec<_> = (0..8).map(|_| key()).collect();
    for round in 0..5 {
        thread::scope(|scope| {
            for (n, key) in keys.iter().enumerate() {
                let person = &person;
                let call = format!("auth configure - --profile p{round}-{n}");
                scope.spawn(move || {
                    let said = person.lua_given(&call, key.expose());
                    assert_eq!(said.status, 0, "{}", said.err);
                });
            }
        });
    }
    for round in 0..5 {
        for (n, key) in keys.iter().enumerate() {
            let profile = format!("p{round}-{n}").parse().unwrap();
            let stored = person.file().load(&profile).unwrap().expect("it was written");
            assert_eq!(stored.text.as_str(), key.expose());
        }
    }
    only_the_file_is_there(&person.folder());
}

#[test]
fn a_hand_written_file_is_read_and_its_other_lines_are_kept() {
    let (person, first, second) = (Person::new(), key(), key());
    let person = person.with_stored(&first);
    fs::write(person.file().path(), format!("{}\n", first.expose())).unwrap();
    assert_eq!(person.stored().as_deref(), Some(first.expose()));
    let text = format!("# mine\n[work]\nregion = x\napi_key={}\n", first.expose());
    fs::write(person.file().path(), text).unwrap();
    let person = person.with_stored(&second);
    let text = fs::read_to_string(person.file().path()).unwrap();
    assert!(text.starts_with("# mine\n[work]\nregion = x\n"), "{text}");
    assert_eq!(person.stored().as_deref(), Some(second.expose()));
}

#[track_caller]
pub fn only_the_file_is_there(folder: &Path) {
    let names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["credentials"]);
}
