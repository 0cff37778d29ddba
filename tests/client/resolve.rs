use std::{
    env, fs,
    process::{Command, Stdio},
};

use serde_json::json;

use keyward::client::{App, CredentialsFile, Profile};

use super::support::{Person, format, key, set_mode};

#[test]
fn the_variable_comes_before_the_file_and_the_file_before_dotenv() {
    let (first, second, third) = (key(), key(), key());
    let person = Person::new().with_dotenv(&format!("LUA_API_KEY={}", third.expose()));
    assert_eq!(person.lua("auth key --force").out.trim(), third.expose());
    assert_eq!(person.json("auth status")["source"]["kind"], "dotenv");

    let person = person.with_stored(&second);
    assert_eq!(person.lua("auth key --force").out.trim(), second.expose());
    let status = person.json("auth status");
    let path = person.file().path().to_str().unwrap().to_owned();
    assert_eq!(status["source"], json!({ "kind": "file", "path": path, "profile": "default" }));
    assert_eq!(status["mode"], "0600");
    assert_eq!(status["shadows"][0]["kind"], "dotenv");

    let person = person.with_variable(first.expose());
    assert_eq!(person.lua("auth key --force").out.trim(), first.expose());
    let status = person.json("auth status");
    assert_eq!(status["source"], json!({ "kind": "variable", "variable": "LUA_API_KEY" }));
    assert_eq!(status["mode"], json!(null));
    let shadows = [&status["shadows"][0]["kind"], &status["shadows"][1]["kind"]];
    assert_eq!(shadows, ["file", "dotenv"]);
    let said = person.lua("auth status").out;
    assert!(said.contains(&format!("Shadows  {path}\nShadows  LUA_API_KEY in ")), "{said}");
}

#[test]
fn a_blank_variable_counts_as_absent() {
    for blank in ["", " ", "\n"] {
        let key = key();
        let person = Person::new().with_stored(&key).with_variable(blank);
        let person = person.with_dotenv("LUA_API_KEY=  ");
        let status = person.json("auth status");
        assert_eq!(status["source"]["kind"], "file", "{blank:?}");
        assert_eq!(status["shadows"], json!([]));
    }
}

#[test]
fn white_space_around_the_key_is_trimmed() {
    let key = key();
    let spaced = format!("  {}\n", key.expose());
    let person = Person::new().with_variable(&spaced);
    assert_eq!(person.lua("auth key --force").out.trim(), key.expose());
    let person = Person::new();
    assert_eq!(person.lua_given("auth configure -", &spaced).status, 0);
    assert_eq!(person.stored().as_deref(), Some(key.expose()));
}

#[test]
fn what_is_no_key_is_refused_unseen_and_no_later_place_is_taken() {
    let (right, other) = (key(), key());
    let text = right.expose();
    let altered =
        format!("{}{}", &text[..text.len() - 1], if text.ends_with('a') { 'b' } else { 'a' });
    for (wrong, advice) in [
        (altered, "wrong checksum: verify that you copied the complete key"),
        (text[..20].to_owned(), "it has 20 characters and keys have 39"),
        (format!("{} {}", &text[..20], &text[20..]), "a space or a line break inside"),
        (format!("\"{text}\""), "remove the quotation marks"),
        (text.replacen("lk", "xx", 1), "keys begin with lk_"),
        (format!("{text}\u{e9}"), "it has 40 characters"),
    ] {
        let person = Person::new().with_stored(&other).with_variable(&wrong);
        let said = person.lua("auth status");
        said.fails(4, advice);
        assert!(said.err.contains("environment variable LUA_API_KEY"), "{}", said.err);
        assert!(!said.err.contains(&wrong[3..12]), "it shows the text: {}", said.err);
        let error = person.json("auth key --force");
        assert_eq!(error["error"]["kind"], "malformed");
        assert!(!error.to_string().contains(&wrong[3..12]), "{error}");
    }
}

#[test]
fn a_broken_line_in_dotenv_does_not_matter() {
    let key = key();
    let text =
        format!("A='unclosed\n= ${{ nonsense\nLUA_API_KEY=\"{}\" # mine\nB=$(x\n", key.expose());
    let person = Person::new().with_dotenv(&text);
    assert_eq!(person.lua("auth key --force").out.trim(), key.expose());
}

#[test]
fn a_folder_named_dotenv_is_none() {
    let person = Person::new();
    fs::create_dir(person.project().join(".env")).unwrap();
    person.lua("auth status").fails(4, "No API key found");
}

#[test]
fn a_file_that_is_refused_does_not_matter_while_the_variable_is_set() {
    let (first, second) = (key(), key());
    let person = Person::new().with_stored(&first);
    let person = person.with_dotenv(&format!("LUA_API_KEY={}", second.expose()));
    set_mode(person.file().path(), 0o666);
    person.lua("auth key --force").fails(1, "can be written to by others");
    let person = person.with_variable(second.expose());
    let said = person.lua("auth key --force");
    assert_eq!(said.out.trim(), second.expose());
    assert!(said.err.contains("not looked at, and not needed"), "{}", said.err);
}

#[test]
fn without_a_home_folder_the_variable_still_works() {
    let key = key();
    let person = Person::new().with_variable(key.expose());
    for home in ["", "relative"] {
        let mut command = person.command(super::support::lua());
        command.env("HOME", home).args(["auth", "key", "--force"]).stdin(Stdio::null());
        let output = command.output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), key.expose());
    }
}

#[test]
fn a_home_folder_is_not_looked_for_below_the_working_directory() {
    let person = Person::new();
    let file = CredentialsFile::in_folder(person.project().join("relative/.lua-cli"));
    file.save(&Profile::default(), &key()).unwrap();
    let mut command = person.command(super::support::lua());
    let output = command.env("HOME", "relative").args(["auth", "status"]).output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{output:?}");
}

#[test]
fn profiles_are_several_identities_in_one_file() {
    let (private, work) = (key(), key());
    let person = Person::new().with_stored(&private);
    person.lua_given("auth configure --profile work --api-key-stdin", work.expose());
    assert_eq!(person.lua("auth key --force").out.trim(), private.expose());
    assert_eq!(person.lua("auth key --force --profile work").out.trim(), work.expose());
    person.lua("auth key --force --profile absent").fails(4, "configure --profile absent");
    person.lua("auth key --force --profile a]b").fails(2, "a profile is named by");

    assert_eq!(person.lua("auth logout --force").status, 0);
    person.lua("auth key --force").fails(4, "No API key found");
    assert_eq!(person.lua("auth key --force --profile work").out.trim(), work.expose());
    assert_eq!(person.lua("auth logout --force --profile work").status, 0);
    assert!(!person.file().path().exists());
}

#[test]
fn the_file_may_stand_in_the_folder_for_configurations() {
    for (variable, path) in [
        (None, "/home/ada/.config/lua/credentials"),
        (Some("/data/config"), "/data/config/lua/credentials"),
        // Where it is would depend on where the program was started.
        (Some("relative"), "/home/ada/.config/lua/credentials"),
    ] {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "client::resolve::prints_the_path", "--ignored", "--nocapture"]);
        command.env("HOME", "/home/ada").env_remove("XDG_CONFIG_HOME");
        command.envs(variable.map(|folder| ("XDG_CONFIG_HOME", folder)));
        let printed = String::from_utf8(command.output().unwrap().stdout).unwrap();
        assert!(printed.contains(&format!("<{path}>")), "{variable:?}: {printed}");
    }
}

#[test]
#[ignore = "it is started by the test above"]
fn prints_the_path() {
    let app = App::new("lua", format()).config_folder("lua");
    println!("<{}>", app.credentials().unwrap().path().display());
}
