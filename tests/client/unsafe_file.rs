use std::{
    fs,
    os::unix::fs::{chown, symlink},
};

use super::support::{TestUser, key, set_mode};

/// A later source must not be used instead: the identity would change silently.
#[test]
fn an_unsafe_credentials_file_is_an_error_even_if_dotenv_has_a_key() {
    for (unsafe_as, because) in [
        ("file open to the group", "is writable by other users"),
        ("file open to all", "is writable by other users"),
        ("folder open to all", "is writable by other users"),
        ("home open to all", "is writable by other users"),
        ("link to a file", "is a symbolic link"),
        ("link to a folder", "is not a directory but a link"),
        ("too long", "is too long"),
        ("of another user", "belongs to another user"),
    ] {
        if unsafe_as == "of another user" && !rustix::process::geteuid().is_root() {
            continue;
        }
        let (stored, other) = (key(), key());
        let user = TestUser::new().with_stored_key(&stored);
        let user = user.with_dotenv(&format!("LUA_API_KEY={}", other.expose()));
        let (file, folder) = (user.credentials_file().path().to_owned(), user.credentials_dir());
        let elsewhere = user.home().join("elsewhere");
        match unsafe_as {
            "file open to the group" => set_mode(&file, 0o660),
            "file open to all" => set_mode(&file, 0o666),
            "folder open to all" => set_mode(&folder, 0o777),
            "home open to all" => set_mode(user.home(), 0o777),
            "link to a file" => {
                fs::rename(&file, &elsewhere).unwrap();
                symlink(&elsewhere, &file).unwrap();
            }
            "link to a folder" => {
                fs::rename(&folder, &elsewhere).unwrap();
                symlink(&elsewhere, &folder).unwrap();
            }
            "too long" => {
                fs::write(&file, vec![b'x'; 100_000]).unwrap();
                set_mode(&file, 0o600);
            }
            "of another user" => chown(&file, Some(65_534), None).unwrap(),
            unknown => panic!("no case is called {unknown}"),
        }
        for call in ["auth key --force", "auth status"] {
            let result = user.lua(call);
            assert_eq!(
                (result.status, &*result.stdout),
                (1, ""),
                "{unsafe_as}: {call}: {}",
                result.stderr
            );
            assert!(result.stderr.contains(because), "{unsafe_as}: {}", result.stderr);
            assert!(!result.stderr.contains(other.expose()), "{unsafe_as}: {}", result.stderr);
        }
        let error = user.json("auth key --force");
        assert_eq!(error["error"]["kind"], "unsafe", "{unsafe_as}: {error}");
        set_mode(user.home(), 0o700);
    }
}
