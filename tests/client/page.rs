//! The statements about authentication on the product page that `examples/lua_cli` implements.

use std::fs;

use super::support::{AuthServer, TestUser, key, mode};

#[test]
fn an_api_key_is_set_in_one_command() {
    let (user, key) = (TestUser::new(), key());
    assert_eq!(user.lua(&format!("auth configure --api-key {}", key.expose())).status, 0);
    let file = user.home().join(".lua-cli/credentials");
    assert_eq!(mode(&file), 0o600);
    assert_eq!(mode(&user.credentials_dir()), 0o700);
    let text = fs::read_to_string(file).unwrap();
    assert!(text.contains(key.expose()), "plain text: {text}");
    assert!(user.lua("push").stderr.contains("the server is unavailable"), "a key was found");
}

#[test]
fn an_email_code_is_exchanged_for_a_key_in_two_steps() {
    let server = AuthServer::start();
    let user = TestUser::with_server(&server);
    let result = user.lua("auth configure --email ada@example.com");
    assert_eq!(result.status, 0);
    assert!(result.stdout.contains("Check your email for a 6-digit code."), "{}", result.stdout);
    let verify =
        |code: &str| user.lua(&format!("auth configure --email ada@example.com --otp {code}"));
    verify("000000").assert_fails(4, "❌ Invalid OTP code");
    verify("000000").assert_fails(4, "Double-check the code from the email, or request a new one");
    assert_eq!(verify(&server.last_code()).status, 0);
    assert!(user.lua("push").stdout.starts_with("Pushed as lk_"));

    user.lua("auth configure --email ada@example.com");
    server.expire_codes();
    verify(&server.last_code()).assert_fails(4, "Request a new one, and use it soon");
    user.lua("auth configure --otp 123456").assert_fails(2, "--email");
    user.lua("auth configure --email ada").assert_fails(2, "invalid email address");
}

#[test]
fn the_environment_variable_needs_no_file() {
    let server = AuthServer::start();
    let key = key();
    server.accept_key(&key);
    let user = TestUser::with_server(&server).with_env_var(key.expose());
    assert_eq!(user.lua("push").status, 0);
    assert!(!user.credentials_dir().exists());
    let stored = super::support::key();
    assert!(
        user.with_stored_key(&stored).lua("push").stdout.contains(&key.expose()[..11]),
        "priority"
    );
}

#[test]
fn the_key_is_shown_with_force_and_logout_deletes_the_file() {
    let server = AuthServer::start();
    let key = key();
    server.accept_key(&key);
    let user = TestUser::with_server(&server).with_stored_key(&key);
    assert_eq!(user.lua("auth key --force").stdout.trim(), key.expose());
    assert_eq!(user.lua("auth logout --force").stdout, "API key deleted successfully.\n");
    assert!(!user.home().join(".lua-cli/credentials").exists());
    user.lua("push").assert_fails(4, "No API key found");
    assert!(server.is_valid(key.expose()), "not invalidated on the server");
    assert_eq!(user.with_env_var(key.expose()).lua("push").status, 0);
}

#[test]
fn no_api_key_found_lists_three_ways_to_provide_one() {
    let result = TestUser::new().lua("auth status");
    result.assert_fails(4, "No API key found.");
    for way in ["`lua auth configure`", ".lua-cli/credentials", "LUA_API_KEY", ".env file"] {
        assert!(result.stderr.contains(way), "{way}: {}", result.stderr);
    }
    let key = key();
    let user = TestUser::new().with_dotenv(&format!("LUA_API_KEY={}\n", key.expose()));
    assert_eq!(user.lua("auth status").status, 0);
}

#[test]
fn a_revoked_key_fails_to_authenticate() {
    let server = AuthServer::start();
    let user = TestUser::with_server(&server).with_stored_key(&key());
    user.lua("push").assert_fails(4, "❌ Authentication failed");
    let result = user.lua_with_stdin("auth configure -", key().expose());
    result.assert_fails(4, "❌ Authentication failed");
    for advice in ["copied the complete key", "revoked", "no extra spaces", "new one"] {
        assert!(result.stderr.contains(advice), "{advice}: {}", result.stderr);
    }
}
