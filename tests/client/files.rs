use std::{
    fs,
    os::unix::fs::{chown, symlink},
    path::Path,
    process::Command,
    thread,
};

use keyward::{
    Secret,
    client::{ClientErrorKind, CredentialsFile, Profile, Warning},
};

use super::support::{TestUser, key, mode, set_mode};

#[track_caller]
fn assert_rejected(file: &CredentialsFile, because: &str) {
    let profile = Profile::default();
    let before = fs::read(file.path()).ok();
    for error in [
        file.load(&profile).expect_err("load must fail"),
        file.save(&profile, &key()).expect_err("save must fail"),
        file.remove(&profile).expect_err("remove must fail"),
        file.check_writable().expect_err("check_writable must fail"),
    ] {
        assert_eq!(error.kind(), ClientErrorKind::Unsafe, "{error}");
        assert!(error.to_string().contains(because), "{error}");
    }
    assert_eq!(fs::read(file.path()).ok(), before);
}

#[test]
fn the_file_is_private_with_any_umask() {
    for umask in ["000", "022", "077", "277"] {
        let (user, key) = (TestUser::new(), key());
        let script =
            format!("umask {umask}; exec \"$0\" auth configure --api-key-stdin <<< \"$1\"");
        let mut command: Command = user.command("bash");
        let command = command.arg("-c").arg(script).arg(super::support::lua()).arg(key.expose());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(mode(user.credentials_file().path()), 0o600, "umask {umask}");
        assert_eq!(mode(&user.credentials_dir()), 0o700, "umask {umask}");
    }
}

#[test]
fn a_readable_file_is_restricted_with_a_warning() {
    let (user, first) = (TestUser::new(), key());
    let user = user.with_stored_key(&first);
    let file = user.credentials_file();
    set_mode(file.path(), 0o644);
    let stored = file.load(&Profile::default()).unwrap().unwrap();
    assert!(matches!(stored.warning, Some(Warning::WasReadable { mode: 0o644, .. })), "{stored:?}");
    assert_eq!((mode(file.path()), stored.mode), (0o600, Some(0o600)));
    assert!(file.load(&Profile::default()).unwrap().unwrap().warning.is_none());

    set_mode(file.path(), 0o640);
    let result = user.lua_with_stdin("auth configure -", key().expose());
    assert!(result.stderr.contains("was readable by other users (mode 0640)"), "{}", result.stderr);
    assert_eq!(mode(file.path()), 0o600);
}

#[test]
fn paths_writable_by_others_are_rejected() {
    let (user, key) = (TestUser::new(), key());
    let user = user.with_stored_key(&key);
    for (path, right) in [
        (user.credentials_file().path(), 0o600),
        (&user.credentials_dir(), 0o700),
        (user.home(), 0o700),
    ] {
        for others in [0o020, 0o002] {
            set_mode(path, right | others);
            assert_rejected(&user.credentials_file(), "is writable by other users");
        }
        set_mode(path, right);
    }
    set_mode(user.home(), 0o1777);
    assert!(
        user.stored_key().is_some(),
        "other users cannot rename our directory in a sticky directory"
    );
}

#[test]
fn symbolic_links_are_rejected() {
    let (user, key) = (TestUser::new(), key());
    let user = user.with_stored_key(&key);
    let (file, elsewhere) = (user.credentials_file(), user.home().join("elsewhere"));
    fs::rename(file.path(), &elsewhere).unwrap();
    symlink(&elsewhere, file.path()).unwrap();
    assert_rejected(&file, "is a symbolic link");
    assert!(fs::read_to_string(&elsewhere).unwrap().contains(key.expose()));

    fs::remove_file(file.path()).unwrap();
    fs::rename(user.credentials_dir(), &elsewhere).unwrap_err();
    fs::remove_file(&elsewhere).unwrap();
    fs::rename(user.credentials_dir(), &elsewhere).unwrap();
    symlink(&elsewhere, user.credentials_dir()).unwrap();
    assert_rejected(&file, "is not a directory but a link");
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
}

#[test]
fn paths_of_another_user_are_rejected() {
    if !rustix::process::geteuid().is_root() {
        // A directory of root belongs to another user.
        let error = CredentialsFile::in_dir("/usr/lib").load(&Profile::default()).unwrap_err();
        assert!(error.to_string().contains("belongs to another user"), "{error}");
        return;
    }
    let (user, key) = (TestUser::new(), key());
    let user = user.with_stored_key(&key);
    for path in [user.credentials_file().path(), &user.credentials_dir(), user.home()] {
        chown(path, Some(65_534), None).unwrap();
        assert_rejected(&user.credentials_file(), "belongs to another user");
        chown(path, Some(0), None).unwrap();
    }
    assert!(user.stored_key().is_some());
}

#[test]
fn non_regular_and_oversized_files_are_rejected() {
    let user = TestUser::new().with_stored_key(&key());
    let file = user.credentials_file();
    fs::remove_file(file.path()).unwrap();
    let created = Command::new("mkfifo").arg(file.path()).status().unwrap();
    assert!(created.success());
    let error = file.load(&Profile::default()).expect_err("load must fail without blocking");
    assert!(error.to_string().contains("is not a regular file"), "{error}");
    fs::remove_file(file.path()).unwrap();
    fs::write(file.path(), vec![b'x'; 100_000]).unwrap();
    set_mode(file.path(), 0o600);
    assert_rejected(&file, "is too long");
}

#[test]
fn eight_concurrent_writers_lose_no_key() {
    let user = TestUser::new();
    let keys: Vec<_> = (0..8).map(|_| key()).collect();
    for round in 0..5 {
        thread::scope(|scope| {
            for (n, key) in keys.iter().enumerate() {
                let user = &user;
                let call = format!("auth configure - --profile p{round}-{n}");
                scope.spawn(move || {
                    let result = user.lua_with_stdin(&call, key.expose());
                    assert_eq!(result.status, 0, "{}", result.stderr);
                });
            }
        });
    }
    for round in 0..5 {
        for (n, key) in keys.iter().enumerate() {
            let profile = format!("p{round}-{n}").parse().unwrap();
            let stored =
                user.credentials_file().load(&profile).unwrap().expect("the key was written");
            assert_eq!(stored.text.as_str(), key.expose());
        }
    }
    assert_only_credentials_file(&user.credentials_dir());
}

#[test]
fn a_hand_written_file_is_read_and_its_other_lines_are_kept() {
    let (user, first, second) = (TestUser::new(), key(), key());
    let user = user.with_stored_key(&first);
    fs::write(user.credentials_file().path(), format!("{}\n", first.expose())).unwrap();
    assert_eq!(user.stored_key().as_deref(), Some(first.expose()));
    let text = format!("# mine\n[work]\nregion = x\napi_key={}\n", first.expose());
    fs::write(user.credentials_file().path(), text).unwrap();
    let user = user.with_stored_key(&second);
    let text = fs::read_to_string(user.credentials_file().path()).unwrap();
    assert!(text.starts_with("# mine\n[work]\nregion = x\n"), "{text}");
    assert_eq!(user.stored_key().as_deref(), Some(second.expose()));
}

#[track_caller]
pub fn assert_only_credentials_file(folder: &Path) {
    let names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["credentials"]);
}

/// Runs `edit` on a credentials file with this text, and returns the text afterwards.
fn edited(text: &str, edit: impl FnOnce(&CredentialsFile)) -> Option<String> {
    let home = tempfile::tempdir().unwrap();
    let file = CredentialsFile::in_dir(home.path());
    fs::write(file.path(), text).unwrap();
    edit(&file);
    fs::read_to_string(file.path()).ok()
}

fn profile(name: &str) -> Profile {
    name.parse().unwrap()
}

#[test]
fn a_key_belongs_to_the_profile_header_above_it() {
    let load = |text: &str, name: &str| {
        let mut stored = None;
        edited(text, |file| stored = file.load(&profile(name)).unwrap());
        stored.map(|stored| stored.text.to_string())
    };
    let text = "# mine\n[default]\napi_key = lk_1\n\n[work]\nother=3\n api_key=lk_2 \r\n[empty]\napi_key=\n";
    assert_eq!(load(text, "default").as_deref(), Some("lk_1"));
    assert_eq!(load(text, "work").as_deref(), Some("lk_2"));
    assert_eq!(load(text, "empty"), None);
    assert_eq!(load(text, "absent"), None);
    assert_eq!(load("lk_3\n", "default").as_deref(), Some("lk_3"));
    assert_eq!(load("lk_3", "work"), None);
    assert_eq!(load("", "default"), None);
}

#[test]
fn saving_a_key_keeps_all_other_lines() {
    let new = Secret::from("NEW".to_owned());
    let save = |text: &str, name: &str| {
        edited(text, |file| assert!(file.save(&profile(name), &new).is_ok())).unwrap()
    };
    assert_eq!(save("", "default"), "[default]\napi_key = NEW\n");
    assert_eq!(save("old", "default"), "[default]\napi_key = NEW\n");
    assert_eq!(save("old", "work"), "old\n[work]\napi_key = NEW\n");
    assert_eq!(
        save("# a\n[default]\napi_key=old\nb=1\n[work]\napi_key = kept", "default"),
        "# a\n[default]\napi_key = NEW\nb=1\n[work]\napi_key = kept"
    );
    assert_eq!(
        save("[a]\napi_key=1\n[b]\n[a]\napi_key=2\n", "a"),
        "[a]\napi_key = NEW\n[b]\n[a]\n"
    );
}

#[test]
fn removing_a_profile_keeps_the_others() {
    let remove = |text: &str, name: &str| {
        edited(text, |file| assert!(file.remove(&profile(name)).unwrap(), "{text}"))
    };
    let two = "[default]\napi_key = 1\n[work]\napi_key = 2\n";
    assert_eq!(remove(two, "default").as_deref(), Some("[work]\napi_key = 2\n"));
    assert_eq!(remove("old\n[work]\napi_key = 2\n", "work").as_deref(), Some("old\n"));
    assert_eq!(remove("# only this\n[default]\napi_key = 1\n", "default"), None);
}
