use std::{
    env, fs,
    process::{Command, Stdio},
};

use serde_json::json;

use keyward::client::{App, CredentialsFile, Profile};

use super::support::{TestUser, format, key, set_mode};

#[test]
fn resolution_order_is_variable_then_file_then_dotenv() {
    let (first, second, third) = (key(), key(), key());
    let user = TestUser::new().with_dotenv(&format!("LUA_API_KEY={}", third.expose()));
    assert_eq!(user.lua("auth key --force").stdout.trim(), third.expose());
    assert_eq!(user.json("auth status")["source"]["kind"], "dotenv");

    let user = user.with_stored_key(&second);
    assert_eq!(user.lua("auth key --force").stdout.trim(), second.expose());
    let status = user.json("auth status");
    let path = user.credentials_file().path().to_str().unwrap().to_owned();
    assert_eq!(status["source"], json!({ "kind": "file", "path": path, "profile": "default" }));
    assert_eq!(status["mode"], "0600");
    assert_eq!(status["shadows"][0]["kind"], "dotenv");

    let user = user.with_env_var(first.expose());
    assert_eq!(user.lua("auth key --force").stdout.trim(), first.expose());
    let status = user.json("auth status");
    assert_eq!(status["source"], json!({ "kind": "variable", "variable": "LUA_API_KEY" }));
    assert_eq!(status["mode"], json!(null));
    let shadows = [&status["shadows"][0]["kind"], &status["shadows"][1]["kind"]];
    assert_eq!(shadows, ["file", "dotenv"]);
    let result = user.lua("auth status").stdout;
    assert!(result.contains(&format!("Shadows  {path}\nShadows  LUA_API_KEY in ")), "{result}");
}

#[test]
fn a_blank_variable_counts_as_absent() {
    for blank in ["", " ", "\n"] {
        let key = key();
        let user = TestUser::new().with_stored_key(&key).with_env_var(blank);
        let user = user.with_dotenv("LUA_API_KEY=  ");
        let status = user.json("auth status");
        assert_eq!(status["source"]["kind"], "file", "{blank:?}");
        assert_eq!(status["shadows"], json!([]));
    }
}

#[test]
fn white_space_around_the_key_is_trimmed() {
    let key = key();
    let spaced = format!("  {}\n", key.expose());
    let user = TestUser::new().with_env_var(&spaced);
    assert_eq!(user.lua("auth key --force").stdout.trim(), key.expose());
    let user = TestUser::new();
    assert_eq!(user.lua_with_stdin("auth configure -", &spaced).status, 0);
    assert_eq!(user.stored_key().as_deref(), Some(key.expose()));
}

#[test]
fn a_malformed_key_is_rejected_without_showing_it_or_trying_later_sources() {
    let (right, other) = (key(), key());
    let text = right.expose();
    let altered =
        format!("{}{}", &text[..text.len() - 1], if text.ends_with('a') { 'b' } else { 'a' });
    for (wrong, advice) in [
        (altered, "wrong checksum: verify that you copied the complete key"),
        (text[..20].to_owned(), "it has 20 characters, but keys have 39"),
        (format!("{} {}", &text[..20], &text[20..]), "contains a space or a line break"),
        (format!("\"{text}\""), "remove the quotation marks"),
        (text.replacen("lk", "xx", 1), "keys begin with lk_"),
        (format!("{text}\u{e9}"), "it has 40 characters"),
    ] {
        let user = TestUser::new().with_stored_key(&other).with_env_var(&wrong);
        let result = user.lua("auth status");
        result.assert_fails(4, advice);
        assert!(result.stderr.contains("environment variable LUA_API_KEY"), "{}", result.stderr);
        assert!(!result.stderr.contains(&wrong[3..12]), "the text is shown: {}", result.stderr);
        let error = user.json("auth key --force");
        assert_eq!(error["error"]["kind"], "malformed");
        assert!(!error.to_string().contains(&wrong[3..12]), "{error}");
    }
}

#[test]
fn dotenv_lines_are_read_like_a_shell() {
    let (first, second) = (key(), key());
    let (first, second) = (first.expose(), second.expose());
    let user = TestUser::new();
    for (file, found) in [
        ("KEY=FIRST", Ok(first)),
        ("KEY=FIRST\n", Ok(first)),
        ("KEY=FIRST\r\nOTHER=2\r\n", Ok(first)),
        ("\u{feff}KEY=FIRST", Ok(first)),
        ("export KEY=FIRST", Ok(first)),
        ("export\tKEY = FIRST ", Ok(first)),
        ("KEY=\"FIRST\" # mine", Ok(first)),
        ("KEY=' FIRST '", Ok(first)),
        ("KEY=FIRST # mine", Ok(first)),
        ("KEY=FIRST#2", Err("it has 41 characters")),
        ("KEY=FIRST$HOME", Err("it has 44 characters")),
        ("KEY=\"FIRST", Err("it begins with a quotation mark")),
        ("KEY=FIRST\nKEY=SECOND", Ok(second)),
        ("= nonsense ${\n'\nKEY=FIRST\n\"", Ok(first)),
        ("A='unclosed\n= ${ nonsense\nKEY=\"FIRST\" # mine\nB=$(x\n", Ok(first)),
        ("KEY=FIRST\nKEY=", Err(NO_KEY)),
        ("KEY=", Err(NO_KEY)),
        ("KEY=  ", Err(NO_KEY)),
        ("KEY=\"\"", Err(NO_KEY)),
        ("KEY= # none", Err(NO_KEY)),
        ("#KEY=FIRST", Err(NO_KEY)),
        ("MYKEY=FIRST", Err(NO_KEY)),
        ("KEYS=FIRST", Err(NO_KEY)),
        ("exportKEY=FIRST", Err(NO_KEY)),
        ("KEY", Err(NO_KEY)),
        ("", Err(NO_KEY)),
    ] {
        let text = file.replace("KEY", "LUA_API_KEY").replace("FIRST", first);
        fs::write(user.project().join(".env"), text.replace("SECOND", second)).unwrap();
        let result = user.lua("auth key --force");
        match found {
            Ok(key) => assert_eq!(result.stdout.trim(), key, "{file:?}: {}", result.stderr),
            Err(because) => result.assert_fails(4, because),
        }
    }
    let bytes = [b"A=\xff\xfe\nLUA_API_KEY=", first.as_bytes(), b"\n"].concat();
    fs::write(user.project().join(".env"), bytes).unwrap();
    assert_eq!(user.lua("auth key --force").stdout.trim(), first);
}

#[test]
fn a_directory_named_dotenv_is_ignored() {
    let user = TestUser::new();
    fs::create_dir(user.project().join(".env")).unwrap();
    user.lua("auth status").assert_fails(4, "No API key found");
}

#[test]
fn an_unsafe_credentials_file_is_only_a_warning_if_the_variable_is_set() {
    let (first, second) = (key(), key());
    let user = TestUser::new().with_stored_key(&first);
    let user = user.with_dotenv(&format!("LUA_API_KEY={}", second.expose()));
    set_mode(user.credentials_file().path(), 0o666);
    user.lua("auth key --force").assert_fails(1, "is writable by other users");
    let user = user.with_env_var(second.expose());
    let result = user.lua("auth key --force");
    assert_eq!(result.stdout.trim(), second.expose());
    assert!(result.stderr.contains("skipped a source that was not needed"), "{}", result.stderr);
}

#[test]
fn the_variable_works_without_a_home_directory() {
    let key = key();
    let user = TestUser::new().with_env_var(key.expose());
    for home in ["", "relative"] {
        let mut command = user.command(super::support::lua());
        command.env("HOME", home).args(["auth", "key", "--force"]).stdin(Stdio::null());
        let output = command.output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), key.expose());
    }
}

#[test]
fn a_relative_home_is_not_resolved_in_the_working_directory() {
    let user = TestUser::new();
    let file = CredentialsFile::in_dir(user.project().join("relative/.lua-cli"));
    file.save(&Profile::default(), &key()).unwrap();
    let mut command = user.command(super::support::lua());
    let output = command.env("HOME", "relative").args(["auth", "status"]).output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{output:?}");
}

#[test]
fn one_file_stores_several_profiles() {
    let (private, work) = (key(), key());
    let user = TestUser::new().with_stored_key(&private);
    user.lua_with_stdin("auth configure --profile work --api-key-stdin", work.expose());
    assert_eq!(user.lua("auth key --force").stdout.trim(), private.expose());
    assert_eq!(user.lua("auth key --force --profile work").stdout.trim(), work.expose());
    user.lua("auth key --force --profile absent").assert_fails(4, "configure --profile absent");
    user.lua("auth key --force --profile a]b").assert_fails(2, "invalid profile name");

    assert_eq!(user.lua("auth logout --force").status, 0);
    user.lua("auth key --force").assert_fails(4, "No API key found");
    assert_eq!(user.lua("auth key --force --profile work").stdout.trim(), work.expose());
    assert_eq!(user.lua("auth logout --force --profile work").status, 0);
    assert!(!user.credentials_file().path().exists());
}

#[test]
fn config_dir_is_the_platform_configuration_directory() {
    for (variable, path) in [
        (None, "/home/ada/.config/lua/credentials"),
        (Some("/data/config"), "/data/config/lua/credentials"),
        // A relative path would depend on the working directory.
        (Some("relative"), "/home/ada/.config/lua/credentials"),
    ] {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args([
            "--exact",
            "client::resolve::print_credentials_path",
            "--ignored",
            "--nocapture",
        ]);
        command.env("HOME", "/home/ada").env_remove("XDG_CONFIG_HOME");
        command.envs(variable.map(|folder| ("XDG_CONFIG_HOME", folder)));
        let printed = String::from_utf8(command.output().unwrap().stdout).unwrap();
        assert!(printed.contains(&format!("<{path}>")), "{variable:?}: {printed}");
    }
}

#[test]
#[ignore = "started by the test above"]
fn print_credentials_path() {
    let app = App::new("lua", format()).config_dir("lua");
    println!("<{}>", app.credentials().unwrap().path().display());
}

const NO_KEY: &str = "No API key found";
