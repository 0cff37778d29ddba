use std::{fs, io::Write, process::Stdio};

use keyward::KeyFormat;
use serde_json::{Value, json};

use super::support::{AuthServer, CommandResult, REFUSED_EMAIL, TestUser, key, lua};
use crate::support::{examples::example, servers::until};

#[test]
fn a_key_from_stdin_is_not_visible_in_arguments() {
    let (user, key) = (TestUser::new(), key());
    for arguments in
        ["auth configure --api-key-stdin", "auth configure -", "auth configure --api-key -"]
    {
        let mut child = user
            .command(lua())
            .args(arguments.split_whitespace())
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let file = format!("/proc/{}/cmdline", child.id());
        let cmdline = || String::from_utf8(fs::read(&file).unwrap()).unwrap();
        until("the program to start", || cmdline().contains("configure"));
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(key.expose().as_bytes()).unwrap();
        stdin.flush().unwrap();
        // The program is still running: its standard input is open.
        assert!(!cmdline().contains(&key.expose()[..8]), "{}", cmdline());
        drop(stdin);
        let result = CommandResult::from(child.wait_with_output().unwrap());
        assert_eq!(result.status, 0, "{}", result.stderr);
        assert!(!result.stderr.contains("visible to other users"), "{}", result.stderr);
        assert_eq!(user.stored_key().as_deref(), Some(key.expose()));
        user.credentials_file().remove(&Default::default()).unwrap();
    }
}

#[test]
fn a_key_as_an_argument_is_stored_with_a_warning() {
    let (user, key) = (TestUser::new(), key());
    let result = user.lua(&format!("auth configure --api-key {}", key.expose()));
    assert_eq!(result.status, 0);
    assert!(result.stderr.contains("Arguments are visible to other users"), "{}", result.stderr);
    assert!(result.stderr.contains("--api-key-stdin"), "{}", result.stderr);
    assert!(!format!("{}{}", result.stdout, result.stderr).contains(&key.expose()[12..]));
    assert_eq!(user.stored_key().as_deref(), Some(key.expose()));
}

#[test]
fn a_key_in_the_wrong_argument_is_rejected_without_showing_it() {
    let (user, key) = (TestUser::new(), key());
    for arguments in ["auth configure KEY", "auth configure --email a@b.c --otp 1 --api-key KEY"] {
        let result = user.lua(&arguments.replace("KEY", key.expose()));
        assert_eq!(result.status, 2);
        assert!(!result.stderr.contains(&key.expose()[..8]), "{}", result.stderr);
        assert_eq!(user.stored_key(), None);
    }
}

#[test]
fn without_a_terminal_the_error_names_the_option_to_use() {
    let (user, key) = (TestUser::new(), key());
    let configure = user.lua("auth configure");
    configure.assert_fails(2, "--api-key-stdin, or set the environment variable LUA_API_KEY");
    let user = user.with_stored_key(&key);
    user.lua("auth key").assert_fails(2, "add --force");
    user.lua("auth logout").assert_fails(2, "add --force");
    assert_eq!(user.json("auth logout")["error"]["kind"], "no_terminal");
    assert_eq!(user.stored_key().as_deref(), Some(key.expose()));
}

#[test]
fn empty_or_malformed_stdin_is_rejected() {
    TestUser::new()
        .lua_with_stdin("auth configure -", " \n")
        .assert_fails(2, "no key on standard input");
    TestUser::new()
        .lua_with_stdin("auth configure -", "lk_1\nlk_2")
        .assert_fails(4, "it contains a space or a line break");
}

#[test]
fn only_the_key_goes_to_stdout() {
    let (user, key) = (TestUser::new(), key());
    let result = user.with_stored_key(&key).lua("auth key --force");
    assert_eq!(result.stdout, format!("{}\n", key.expose()));
    assert_eq!(result.stderr, "🔑 Your API key:\n");
}

#[test]
fn configure_and_logout_note_other_sources() {
    let (user, key) = (TestUser::new(), key());
    let user = user.with_env_var(key.expose());
    let result = user.lua_with_stdin("auth configure -", key.expose());
    assert!(result.stderr.contains("LUA_API_KEY is set and takes precedence"), "{}", result.stderr);
    let result = user.lua("auth logout --force");
    assert!(
        result.stderr.contains("LUA_API_KEY is still set and will be used"),
        "{}",
        result.stderr
    );

    let (user, key) = (TestUser::new(), super::support::key());
    let user = user.with_stored_key(&key).with_dotenv(&format!("LUA_API_KEY={}", key.expose()));
    let result = user.lua("auth logout --force");
    assert!(result.stderr.contains(".env is still set and will be used"), "{}", result.stderr);
}

#[test]
fn status_check_asks_the_server() {
    let server = AuthServer::start();
    let key = key();
    let user = TestUser::with_server(&server).with_stored_key(&key);
    let result = user.lua("auth status --check");
    assert_eq!(result.status, 4);
    assert!(result.stdout.contains("Server   does not accept the key"), "{}", result.stdout);
    assert!(
        result.stderr.contains("Authentication failed: the key may have been revoked"),
        "{}",
        result.stderr
    );
    assert_eq!(user.json("auth status --check")["accepted"], false);

    server.accept_key(&key);
    assert_eq!(user.json("auth status --check")["accepted"], true);
    assert_eq!(user.lua("auth status --check").status, 0);

    server.go_down();
    user.lua("auth status --check").assert_fails(1, "The key may still be valid: try again later");
    assert_eq!(user.lua("auth status").status, 0, "the server is not asked");
}

#[test]
fn a_rejected_key_is_not_stored_but_an_unchecked_key_is() {
    let server = AuthServer::start();
    let (user, key) = (TestUser::with_server(&server), key());
    user.lua_with_stdin("auth configure -", key.expose()).assert_fails(4, "Authentication failed");
    assert_eq!(user.stored_key(), None);
    server.go_down();
    let result = user.lua_with_stdin("auth configure -", key.expose());
    assert!(result.stderr.contains("stored without checking it"), "{}", result.stderr);
    assert_eq!(user.stored_key().as_deref(), Some(key.expose()));
}

#[test]
fn logout_revokes_the_key_only_with_the_revoke_option() {
    let server = AuthServer::start();
    let key = key();
    server.accept_key(&key);
    let user = TestUser::with_server(&server).with_stored_key(&key);
    let result = user.lua("auth logout --force");
    assert!(result.stderr.contains("The key is still valid on the server"), "{}", result.stderr);
    assert!(server.is_valid(key.expose()));
    assert_eq!(user.lua("auth logout --force").status, 0, "already signed out");
    user.lua("auth logout --force --revoke").assert_fails(4, "No API key found");

    let user = user.with_stored_key(&key);
    let result = user.json("auth logout --force --revoke");
    assert_eq!((&result["deleted"], &result["revoked"]), (&json!(true), &json!(true)));
    assert!(!server.is_valid(key.expose()));
    assert_eq!(user.stored_key(), None);
}

#[test]
fn logout_says_whether_the_key_was_revoked() {
    let server = AuthServer::start();
    let key = key();
    server.accept_key(&key);
    let user = TestUser::with_server(&server).with_stored_key(&key);
    let revoked = user.lua("auth logout --force --revoke").stdout;
    assert_eq!(revoked, "API key revoked on the server, and deleted successfully.\n");
    let user = user.with_stored_key(&key);
    let rejected = user.lua("auth logout --force --revoke");
    assert_eq!(rejected.stdout, "API key deleted successfully.\n");
    assert!(rejected.stderr.contains("no longer accepted the key"), "{}", rejected.stderr);
}

#[test]
fn logout_keeps_the_key_if_revoking_fails() {
    let server = AuthServer::start();
    let key = key();
    server.accept_key(&key);
    server.go_down();
    let user = TestUser::with_server(&server).with_stored_key(&key);
    user.lua("auth logout --force --revoke").assert_fails(1, "try again later");
    assert_eq!(user.stored_key().as_deref(), Some(key.expose()));
}

#[test]
fn without_a_key_and_a_server_no_key_is_called_valid() {
    let user = TestUser::new();
    for code in ["", " --otp 123456"] {
        let result = user.lua(&format!("auth configure --email ada@example.com{code}"));
        result.assert_fails(1, "Try again later");
        assert!(!result.stderr.contains("valid"), "{}", result.stderr);
    }
}

#[test]
fn commands_do_not_offer_what_the_server_does_not_support() {
    let user = TestUser::new();
    let run = |program, arguments: &[&str], input: &str| {
        let mut command = user.command(example(program));
        let mut child = command.args(arguments).stdin(Stdio::piped()).spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        CommandResult::from(child.wait_with_output().unwrap())
    };
    for (program, prefix, is_offered) in
        [("lua_cli", "lk", true), ("lumio_cli", "lm", false), ("lurus_cli", "lc", false)]
    {
        for (command, option, always) in [
            ("configure", "--email", "--api-key-stdin"),
            ("configure", "--otp", "--api-key-stdin"),
            ("status", "--check", "--profile"),
            ("logout", "--revoke", "--force"),
        ] {
            let help = run(program, &["auth", command, "--help"], "").stdout;
            assert!(help.contains(always), "{program} {command}: {help}");
            assert_eq!(help.contains(option), is_offered, "{program} {command}: {help}");
        }
        let mut format = KeyFormat::builder(prefix);
        if program == "lumio_cli" {
            format = format.environment("dev").total_len(64);
        }
        let key = format.build().unwrap().generate().unwrap();
        let stored = run(program, &["auth", "configure", "-"], key.expose());
        assert_eq!(stored.status, 0, "{program}: {}", stored.stderr);
        let note = run(program, &["auth", "logout", "--force"], "").stderr;
        assert!(note.contains("still valid on the server"), "{program}: {note}");
        assert_eq!(note.contains("--revoke"), is_offered, "{program}: {note}");
    }
}

#[test]
fn a_code_is_not_used_if_the_key_cannot_be_stored() {
    let server = AuthServer::start();
    let user = TestUser::with_server(&server);
    fs::write(user.credentials_dir(), "not a directory").unwrap();
    user.lua("auth configure --email ada@example.com");
    let verify = format!("auth configure --email ada@example.com --otp {}", server.last_code());
    user.lua(&verify).assert_fails(1, "is not a directory");
    assert_eq!(server.valid_keys(), Vec::<String>::new());
    fs::remove_file(user.credentials_dir()).unwrap();
    assert_eq!(user.lua(&verify).status, 0);
}

#[test]
fn control_characters_are_removed_from_server_messages() {
    let server = AuthServer::start();
    let user = TestUser::with_server(&server);
    let result = user.lua(&format!("auth configure --email {REFUSED_EMAIL}"));
    let shown = format!("The server refused the request: no[2J: 1mbecause{}\n", "é".repeat(284));
    result.assert_fails(1, &shown);
}

#[test]
fn every_command_supports_json() {
    let server = AuthServer::start();
    let key = key();
    server.accept_key(&key);
    let user = TestUser::with_server(&server);
    let given = user.lua_with_stdin("auth configure - --json", key.expose());
    let stored: Value = serde_json::from_str(&given.stdout).unwrap();
    let hint = &key.expose()[..11];
    assert_eq!((&stored["stored"], &stored["hint"]), (&json!(true), &json!(hint)));
    assert_eq!(user.json("auth key --force")["api_key"], key.expose());
    assert_eq!(user.json("auth status")["hint"], hint);
    assert_eq!(user.json("auth configure --email a@b.c")["code_sent"], true);
    let logout = user.json("auth logout --force");
    assert_eq!(logout["deleted"], true);
    assert!(logout["notes"][0].as_str().unwrap().contains("still valid"), "{logout}");
    assert_eq!(user.json("auth status")["error"]["kind"], "no_key");
}
