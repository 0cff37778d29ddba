use std::{fs, io::Write, process::Stdio};

use serde_json::{Value, json};

use super::support::{Api, Person, Said, key, lua};
use crate::support::servers::until;

#[test]
fn the_key_on_standard_input_is_in_no_argument() {
    let (person, key) = (Person::new(), key());
    for arguments in
        ["auth configure --api-key-stdin", "auth configure -", "auth configure --api-key -"]
    {
        let mut child = person
            .command(lua())
            .args(arguments.split_whitespace())
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let file = format!("/proc/{}/cmdline", child.id());
        let cmdline = || String::from_utf8(fs::read(&file).unwrap()).unwrap();
        until("the program runs", || cmdline().contains("configure"));
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(key.expose().as_bytes()).unwrap();
        stdin.flush().unwrap();
        // It cannot end before its input does.
        assert!(!cmdline().contains(&key.expose()[..8]), "{}", cmdline());
        drop(stdin);
        let said = Said::from(child.wait_with_output().unwrap());
        assert_eq!(said.status, 0, "{}", said.err);
        assert!(!said.err.contains("visible to others"), "{}", said.err);
        assert_eq!(person.stored().as_deref(), Some(key.expose()));
        person.file().remove(&Default::default()).unwrap();
    }
}

#[test]
fn the_key_as_an_argument_works_and_is_warned_of() {
    let (person, key) = (Person::new(), key());
    let said = person.lua(&format!("auth configure --api-key {}", key.expose()));
    assert_eq!(said.status, 0);
    assert!(said.err.contains("Arguments are visible to others"), "{}", said.err);
    assert!(said.err.contains("--api-key-stdin"), "{}", said.err);
    assert!(!format!("{}{}", said.out, said.err).contains(&key.expose()[12..]));
    assert_eq!(person.stored().as_deref(), Some(key.expose()));
}

#[test]
fn a_key_in_the_wrong_place_is_refused_unseen() {
    let (person, key) = (Person::new(), key());
    for arguments in ["auth configure KEY", "auth configure --email a@b.c --otp 1 --api-key KEY"] {
        let said = person.lua(&arguments.replace("KEY", key.expose()));
        assert_eq!(said.status, 2);
        assert!(!said.err.contains(&key.expose()[..8]), "{}", said.err);
        assert_eq!(person.stored(), None);
    }
}

#[test]
fn without_a_terminal_nothing_is_asked_and_the_flag_is_named() {
    let (person, key) = (Person::new(), key());
    let configure = person.lua("auth configure");
    configure.fails(2, "--api-key-stdin, or set the environment variable LUA_API_KEY");
    let person = person.with_stored(&key);
    person.lua("auth key").fails(2, "add --force");
    person.lua("auth logout").fails(2, "add --force");
    assert_eq!(person.json("auth logout")["error"]["kind"], "no_terminal");
    assert_eq!(person.stored().as_deref(), Some(key.expose()));
}

#[test]
fn nothing_on_standard_input_is_no_key() {
    Person::new().lua_given("auth configure -", " \n").fails(2, "standard input has no key");
    Person::new().lua_given("auth configure -", "lk_1\nlk_2").fails(4, "a line break inside");
}

#[test]
fn the_key_alone_goes_to_standard_output() {
    let (person, key) = (Person::new(), key());
    let said = person.with_stored(&key).lua("auth key --force");
    assert_eq!(said.out, format!("{}\n", key.expose()));
    assert_eq!(said.err, "🔑 Your API key:\n");
}

#[test]
fn configure_and_logout_say_that_the_variable_wins() {
    let (person, key) = (Person::new(), key());
    let person = person.with_variable(key.expose());
    let said = person.lua_given("auth configure -", key.expose());
    assert!(said.err.contains("LUA_API_KEY is set, and wins"), "{}", said.err);
    let said = person.lua("auth logout --force");
    assert!(said.err.contains("LUA_API_KEY is set, and is used"), "{}", said.err);

    let (person, key) = (Person::new(), super::support::key());
    let person = person.with_stored(&key).with_dotenv(&format!("LUA_API_KEY={}", key.expose()));
    let said = person.lua("auth logout --force");
    assert!(said.err.contains(".env, which is used from now on"), "{}", said.err);
}

#[test]
fn status_asks_the_server_if_told_to() {
    let api = Api::start();
    let key = key();
    let person = Person::of(&api).with_stored(&key);
    let said = person.lua("auth status --check");
    assert_eq!(said.status, 4);
    assert!(said.out.contains("Server   does not accept it"), "{}", said.out);
    assert!(
        said.err.contains("Authentication failed: the key may have been revoked"),
        "{}",
        said.err
    );
    assert_eq!(person.json("auth status --check")["accepted"], false);

    api.accepts(&key);
    assert_eq!(person.json("auth status --check")["accepted"], true);
    assert_eq!(person.lua("auth status --check").status, 0);

    api.goes_down();
    person.lua("auth status --check").fails(1, "The key may well be valid: try again later");
    assert_eq!(person.lua("auth status").status, 0, "the server is not asked");
}

#[test]
fn a_key_that_the_server_rejects_is_not_stored_and_one_that_it_cannot_check_is() {
    let api = Api::start();
    let (person, key) = (Person::of(&api), key());
    person.lua_given("auth configure -", key.expose()).fails(4, "Authentication failed");
    assert_eq!(person.stored(), None);
    api.goes_down();
    let said = person.lua_given("auth configure -", key.expose());
    assert!(said.err.contains("stored unchecked"), "{}", said.err);
    assert_eq!(person.stored().as_deref(), Some(key.expose()));
}

#[test]
fn logout_leaves_the_key_valid_unless_told_to_revoke() {
    let api = Api::start();
    let key = key();
    api.accepts(&key);
    let person = Person::of(&api).with_stored(&key);
    let said = person.lua("auth logout --force");
    assert!(said.err.contains("The key itself stays valid on the server"), "{}", said.err);
    assert!(api.is_live(key.expose()));
    assert_eq!(person.lua("auth logout --force").status, 0, "it is signed out already");
    person.lua("auth logout --force --revoke").fails(4, "No API key found");

    let person = person.with_stored(&key);
    let said = person.json("auth logout --force --revoke");
    assert_eq!((&said["deleted"], &said["revoked"]), (&json!(true), &json!(true)));
    assert!(!api.is_live(key.expose()));
    assert_eq!(person.stored(), None);
}

#[test]
fn a_key_that_could_not_be_revoked_is_kept_for_another_try() {
    let api = Api::start();
    let key = key();
    api.accepts(&key);
    api.goes_down();
    let person = Person::of(&api).with_stored(&key);
    person.lua("auth logout --force --revoke").fails(1, "try again later");
    assert_eq!(person.stored().as_deref(), Some(key.expose()));
}

#[test]
fn a_code_is_not_spent_on_a_key_that_could_not_be_kept() {
    let api = Api::start();
    let person = Person::of(&api);
    fs::write(person.folder(), "in the way").unwrap();
    person.lua("auth configure --email ada@example.com");
    let verify = format!("auth configure --email ada@example.com --otp {}", api.mailed_code());
    person.lua(&verify).fails(1, "is no folder");
    assert_eq!(api.live(), Vec::<String>::new());
    fs::remove_file(person.folder()).unwrap();
    assert_eq!(person.lua(&verify).status, 0);
}

#[test]
fn every_command_answers_in_json() {
    let api = Api::start();
    let key = key();
    api.accepts(&key);
    let person = Person::of(&api);
    let given = person.lua_given("auth configure - --json", key.expose());
    let stored: Value = serde_json::from_str(&given.out).unwrap();
    let hint = &key.expose()[..11];
    assert_eq!((&stored["stored"], &stored["hint"]), (&json!(true), &json!(hint)));
    assert_eq!(person.json("auth key --force")["api_key"], key.expose());
    assert_eq!(person.json("auth status")["hint"], hint);
    assert_eq!(person.json("auth configure --email a@b.c")["code_sent"], true);
    let gone = person.json("auth logout --force");
    assert_eq!(gone["deleted"], true);
    assert!(gone["notes"][0].as_str().unwrap().contains("stays valid"), "{gone}");
    assert_eq!(person.json("auth status")["error"]["kind"], "no_key");
}
