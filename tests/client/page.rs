//! Each statement about authentication of the page that `examples/lua_cli` was modelled on.

use std::fs;

use super::support::{Api, Person, key, mode};

#[test]
fn direct_api_key_in_one_shot() {
    let (person, key) = (Person::new(), key());
    assert_eq!(person.lua(&format!("auth configure --api-key {}", key.expose())).status, 0);
    let file = person.home().join(".lua-cli/credentials");
    assert_eq!(mode(&file), 0o600);
    assert_eq!(mode(&person.folder()), 0o700);
    let text = fs::read_to_string(file).unwrap();
    assert!(text.contains(key.expose()), "plain text: {text}");
    assert!(person.lua("push").err.contains("cannot be asked now"), "it has a key to send");
}

#[test]
fn an_email_otp_in_two_steps() {
    let api = Api::start();
    let person = Person::of(&api);
    let said = person.lua("auth configure --email ada@example.com");
    assert_eq!(said.status, 0);
    assert!(said.out.contains("Check your email for a 6-digit code."), "{}", said.out);
    let verify =
        |code: &str| person.lua(&format!("auth configure --email ada@example.com --otp {code}"));
    verify("000000").fails(4, "❌ Invalid OTP code");
    verify("000000").fails(4, "Double-check the code from the email, or request a new one");
    assert_eq!(verify(&api.mailed_code()).status, 0);
    assert!(person.lua("push").out.starts_with("Pushed as lk_"));

    person.lua("auth configure --email ada@example.com");
    api.codes_expire();
    verify(&api.mailed_code()).fails(4, "Request a new one, and use it soon");
    person.lua("auth configure --otp 123456").fails(2, "--email");
    person.lua("auth configure --email ada").fails(2, "this is no email address");
}

#[test]
fn the_environment_variable_needs_no_file() {
    let api = Api::start();
    let key = key();
    api.accepts(&key);
    let person = Person::of(&api).with_variable(key.expose());
    assert_eq!(person.lua("push").status, 0);
    assert!(!person.folder().exists());
    let stored = super::support::key();
    assert!(person.with_stored(&stored).lua("push").out.contains(&key.expose()[..11]), "priority");
}

#[test]
fn the_key_is_shown_with_force_and_logout_deletes_the_file() {
    let api = Api::start();
    let key = key();
    api.accepts(&key);
    let person = Person::of(&api).with_stored(&key);
    assert_eq!(person.lua("auth key --force").out.trim(), key.expose());
    assert_eq!(person.lua("auth logout --force").out, "API key deleted successfully.\n");
    assert!(!person.home().join(".lua-cli/credentials").exists());
    person.lua("push").fails(4, "No API key found");
    assert!(api.is_live(key.expose()), "not invalidated on the server");
    assert_eq!(person.with_variable(key.expose()).lua("push").status, 0);
}

#[test]
fn no_api_key_found_names_the_three_ways() {
    let said = Person::new().lua("auth status");
    said.fails(4, "No API key found.");
    for way in ["`lua auth configure`", ".lua-cli/credentials", "LUA_API_KEY", ".env file"] {
        assert!(said.err.contains(way), "{way}: {}", said.err);
    }
    let key = key();
    let person = Person::new().with_dotenv(&format!("LUA_API_KEY={}\n", key.expose()));
    assert_eq!(person.lua("auth status").status, 0);
}

#[test]
fn a_revoked_key_fails_to_authenticate() {
    let api = Api::start();
    let person = Person::of(&api).with_stored(&key());
    person.lua("push").fails(4, "❌ Authentication failed");
    let said = person.lua_given("auth configure -", key().expose());
    said.fails(4, "❌ Authentication failed");
    for advice in ["copied the complete key", "revoked", "no extra spaces", "new one"] {
        assert!(said.err.contains(advice), "{advice}: {}", said.err);
    }
}
