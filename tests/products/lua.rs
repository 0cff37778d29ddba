//! The page of the Lua CLI: `examples/lua_cli` against `examples/lua_server`, over HTTP.

use std::{cell::Cell, fs, path::PathBuf};

use keyward::Secret;
use reqwest::Method;
use serde_json::Value;
use tempfile::TempDir;

use super::place::{Place, in_each_place};
use crate::{
    client::support::{Person, Said, Screen, mode},
    support::examples::Serving,
};

const ADA: &str = "ada@example.com";

/// The server, and the terminal on which its letters arrive.
struct Lua {
    server: Serving,
    database: String,
    folder: TempDir,
    read: Cell<usize>,
}

impl Lua {
    fn start(place: &Place) -> Self {
        let (folder, database) = (tempfile::tempdir().unwrap(), place.database().to_owned());
        fs::write(pepper(&folder), "thirty-two bytes or more, in a file").unwrap();
        let server = serving(&folder, &database, "0");
        Self { server, database, folder, read: Cell::new(0) }
    }

    /// A second server on the same keys, on which it is later by so many seconds.
    fn later(&self, seconds: &str) -> Serving {
        serving(&self.folder, &self.database, seconds)
    }

    fn person(&self) -> Person {
        Person::at(self.server.url())
    }

    /// The code in the next letter, which arrives by and by.
    fn mailed_code(&self) -> String {
        let letter = self.read.get();
        let find = |printed: &str| {
            let digits = |line: &&str| line.len() == 6 && line.bytes().all(|b| b.is_ascii_digit());
            printed.lines().filter(digits).nth(letter).map(str::to_owned)
        };
        let code = self.server.prints("a letter arrives", find);
        self.read.set(letter + 1);
        code
    }

    /// Signs in as the page says.
    fn signs_in(&self, person: &Person) -> String {
        let asked = person.lua(&format!("auth configure --email {ADA}"));
        assert_eq!(asked.status, 0, "{}", asked.err);
        let stored = self.verifies(person, &self.mailed_code());
        assert_eq!(stored.status, 0, "{}", stored.err);
        person.stored().expect("it is stored")
    }

    fn verifies(&self, person: &Person, code: &str) -> Said {
        person.lua(&format!("auth configure --email {ADA} --otp {code}"))
    }

    /// What the dashboard does, in Ada's session.
    fn dashboard(&self, method: Method, path: &str, body: &'static str) -> Value {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = reqwest::Client::builder().no_proxy().build().unwrap();
            let request = client.request(method, format!("{}/v1{path}", self.server.url()));
            let request = request.header("cookie", "theme=dark; session=ada");
            let request = request.header("content-type", "application/json");
            let answer = request.body(body).send().await.unwrap();
            assert!(answer.status().is_success(), "{answer:?}");
            serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
        })
    }

    /// The one key that Ada has.
    fn id(&self) -> String {
        let listed = self.dashboard(Method::GET, "/api-keys?status=active", "");
        assert_eq!(listed["keys"].as_array().unwrap().len(), 1, "{listed}");
        listed["keys"][0]["id"].as_str().unwrap().to_owned()
    }

    fn revokes(&self) {
        self.dashboard(Method::DELETE, &format!("/api-keys/{}", self.id()), "");
    }
}

fn serving(folder: &TempDir, database: &str, ahead: &str) -> Serving {
    let pepper = pepper(folder);
    let pepper = ["--pepper", pepper.to_str().unwrap()];
    let arguments = [&["--database", database], &pepper[..], &["--clock-ahead", ahead]];
    Serving::start("lua_server", &arguments.concat())
}

fn pepper(folder: &TempDir) -> PathBuf {
    folder.path().join("pepper")
}

fn pushes(person: &Person) -> bool {
    let said = person.lua("push");
    assert!([0, 4].contains(&said.status), "{}", said.err);
    said.status == 0
}

/// > Lua CLI requires authentication to access the platform and deploy skills.
fn the_cli_requires_authentication(place: &Place) {
    let lua = Lua::start(place);
    lua.person().lua("push").fails(4, "No API key found");
    let person = lua.person();
    lua.signs_in(&person);
    assert!(pushes(&person));
}

/// > configure: Set up authentication. key: Display stored key. logout: Remove credentials.
#[test]
fn the_commands_are_configure_key_and_logout() {
    let help = Person::new().lua("auth --help").out;
    for line in ["configure  Set up authentication", "key        Display", "logout     Remove"] {
        assert!(help.contains(line), "{help}");
    }
}

/// > Both methods support fully non-interactive flows for CI, scripts, and AI IDEs.
/// > Direct API key (one shot): lua auth configure --api-key "lk_xxx..."
/// > Use case: Copying to another machine: Get key to set up elsewhere.
fn a_key_from_elsewhere_is_set_in_one_shot(place: &Place) {
    let lua = Lua::start(place);
    let (first, second) = (lua.person(), lua.person());
    lua.signs_in(&first);
    let key = first.lua("auth key --force").out;
    let said = second.lua(&format!("auth configure --api-key {}", key.trim()));
    assert_eq!(said.status, 0, "{}", said.err);
    assert!(pushes(&first) && pushes(&second));
}

/// > Email OTP — request a code: lua auth configure --email … (CLI prints "Check your email for a
/// > 6-digit code.")
/// > Email OTP — verify and store: lua auth configure --email … --otp 123456
/// > --email: Request an OTP to be sent to this email. Step 1 of the OTP flow.
/// > --otp: Verify the 6-digit code from email and generate an API key. Step 2 (combine with --email).
fn a_code_from_the_mail_becomes_a_key_in_two_steps(place: &Place) {
    let lua = Lua::start(place);
    let person = lua.person();
    let asked = person.lua(&format!("auth configure --email {ADA}"));
    assert_eq!(asked.status, 0, "{}", asked.err);
    assert!(asked.out.contains("Check your email for a 6-digit code."), "{}", asked.out);
    assert_eq!(person.stored(), None);
    let code = lua.mailed_code();
    person.lua(&format!("auth configure --otp {code}")).fails(2, "--email");
    assert_eq!(lua.verifies(&person, &code).status, 0);
    assert!(person.stored().unwrap().starts_with("lk_"));
    assert!(pushes(&person));
    lua.verifies(&lua.person(), &code).fails(4, "❌ Invalid OTP code");
    assert!(lua.server.printed().contains(&format!("To: {ADA}")));
}

/// > The OTP flow is intended for first-time setup on developer machines.
/// > Recommended for individual developers — automatic key management, no manual key to remember.
/// > Try again with lua auth configure. (Interactive setup)
fn the_interactive_setup_shows_no_key(place: &Place) {
    let lua = Lua::start(place);
    let person = lua.person();
    let screen = Screen::start(&person, "auth configure");
    screen.shows("leave it empty to sign in by email");
    screen.types("\r");
    screen.shows("? Your email address:");
    screen.types(&format!("{ADA}\r"));
    screen.shows("? Check your email for a 6-digit code");
    screen.types(&format!("{}\r", lua.mailed_code()));
    let seen = screen.ends(0);
    assert!(!seen.contains(&person.stored().unwrap()), "{seen}");
    assert!(pushes(&person));
}

/// > Credentials are stored in a plain-text file with owner-only permissions (0600):
/// > ~/.lua-cli/credentials
/// > This file is created automatically by lua auth configure. It is never committed to version
/// > control and is only readable by your user account.
fn credentials_are_in_a_plain_file_of_the_owner_alone(place: &Place) {
    let lua = Lua::start(place);
    let person = lua.person();
    let file = person.home().join(".lua-cli/credentials");
    assert!(!file.exists());
    person.lua(&format!("auth configure --email {ADA}"));
    assert_eq!(lua.verifies(&person, &lua.mailed_code()).status, 0);
    // Before anything reads it, which would close it.
    assert_eq!((mode(&file), mode(&person.folder())), (0o600, 0o700));
    let key = person.stored().unwrap();
    assert!(fs::read_to_string(&file).unwrap().contains(&key), "plain text");
    let project = fs::read_dir(person.project()).unwrap().count();
    assert_eq!(project, 0, "nothing lies where it could be committed");
}

/// > For CI/CD, Docker, and headless servers, set the LUA_API_KEY environment variable directly — no
/// > credentials file needed. export LUA_API_KEY=your-api-key; lua push
/// > Inject the key as an environment variable or secret. (GitHub Actions, docker run -e)
/// > CI/CD configuration: Copy key for automated deployments.
fn the_variable_alone_is_enough(place: &Place) {
    let lua = Lua::start(place);
    let key = lua.signs_in(&lua.person());
    let machine = lua.person().with_variable(&key);
    assert!(pushes(&machine));
    assert!(!machine.folder().exists());
}

/// > The environment variable always takes priority over the credentials file.
/// > 1 LUA_API_KEY env var, 2 ~/.lua-cli/credentials, 3 .env file
/// > API keys are resolved from environment variables, a local credentials file, or a .env file — no
/// > system keychain is required.
/// > Verification: Confirm which key is currently configured.
fn the_variable_comes_before_the_file_and_the_file_before_dotenv(place: &Place) {
    let lua = Lua::start(place);
    let keys = [(); 3].map(|()| lua.signs_in(&lua.person()));
    let [variable, file, dotenv] = &keys;
    let confirm = |person: &Person, key: &str| {
        assert_eq!(person.lua("auth key --force").out.trim(), key);
        assert!(person.lua("push").out.contains(&key[..11]), "what it shows is what it uses");
    };
    let person = lua.person().with_dotenv(&format!("LUA_API_KEY={dotenv}\n"));
    confirm(&person, dotenv);
    let person = person.with_stored(&Secret::from(file.clone()));
    confirm(&person, file);
    confirm(&person.with_variable(variable), variable);
}

/// > For security, you must confirm before displaying the key:
/// > ? This will display your API key. Are you sure you want to continue? Yes
/// > 🔑 Your API key: api_abc123def456...
/// > Use --force to skip the confirmation prompt (useful in scripts)
fn the_key_is_displayed_after_a_confirmation_or_by_force(place: &Place) {
    let lua = Lua::start(place);
    let person = lua.person();
    let key = lua.signs_in(&person);
    for (answer, status) in [("Yes", 0), ("No", 2)] {
        let screen = Screen::start(&person, "auth key");
        screen.shows("? This will display your API key. Are you sure you want to continue?");
        screen.types(&format!("{answer}\r"));
        let seen = screen.ends(status);
        assert_eq!(seen.contains(&key), status == 0, "{seen}");
        assert_eq!(seen.contains("🔑 Your API key:"), status == 0, "{seen}");
    }
    person.lua("auth key").fails(2, "--force");
    assert_eq!(person.lua("auth key --force").out.trim(), key);
}

/// > Delete the stored credentials file. ? Are you sure you want to delete your API key? This action
/// > cannot be undone. Yes. API key deleted successfully. Use --force to skip the confirmation.
/// > Credentials File Removed: ~/.lua-cli/credentials is deleted.
/// > CLI Access Lost: You'll need to run lua auth configure or set LUA_API_KEY to use the CLI again.
/// > Key Still Valid on Server: The key is NOT invalidated on the server — it just removes the local
/// > copy. After logout, the key still works if used elsewhere (e.g. as an env var).
/// > Use lua auth logout when done on shared machines.
fn logout_removes_the_local_copy_and_nothing_else(place: &Place) {
    let lua = Lua::start(place);
    let person = lua.person();
    let key = lua.signs_in(&person);
    let file = person.home().join(".lua-cli/credentials");
    for (answer, status) in [("No", 2), ("Yes", 0)] {
        let screen = Screen::start(&person, "auth logout");
        screen
            .shows("? Are you sure you want to delete your API key? This action cannot be undone.");
        screen.types(&format!("{answer}\r"));
        let seen = screen.ends(status);
        assert_eq!(seen.contains("API key deleted successfully."), status == 0, "{seen}");
        assert_eq!(file.exists(), status != 0);
    }
    person.lua("push").fails(4, "No API key found");
    assert!(pushes(&lua.person().with_variable(&key)), "it is used elsewhere");
    let again = person.lua_given("auth configure -", &key);
    assert_eq!(again.status, 0, "{}", again.err);
    assert!(pushes(&person));
    let said = person.lua("auth logout --force");
    assert_eq!(said.out, "API key deleted successfully.\n");
    assert!(!file.exists());
}

/// > To fully revoke access, regenerate a new key from the admin dashboard.
/// > Rotate keys regularly.
fn a_key_that_is_regenerated_ends_the_former_one(place: &Place) {
    let lua = Lua::start(place);
    let person = lua.person();
    lua.signs_in(&person);
    let rotate = format!("/api-keys/{}/rotate", lua.id());
    let rotated = lua.dashboard(Method::POST, &rotate, "");
    person.lua("push").fails(4, "❌ Authentication failed");
    let said = person.lua_given("auth configure -", rotated["key"].as_str().unwrap());
    assert_eq!(said.status, 0, "{}", said.err);
    assert!(pushes(&person));
}

/// Beyond the page: a code has five tries.
fn the_right_code_comes_too_late_behind_five_wrong_ones(place: &Place) {
    let lua = Lua::start(place);
    let person = lua.person();
    person.lua(&format!("auth configure --email {ADA}"));
    let code = lua.mailed_code();
    let wrong = if code == "123456" { "654321" } else { "123456" };
    for _ in 0..5 {
        lua.verifies(&person, wrong).fails(4, "❌ Invalid OTP code");
    }
    lua.verifies(&person, &code).fails(4, "❌ Invalid OTP code");
}

/// Beyond the page: what the server refuses is refused with its reason, and nothing is stored.
fn a_plan_that_is_full_and_an_address_that_cannot_be_are_told(place: &Place) {
    let lua = Lua::start(place);
    for _ in 0..5 {
        lua.dashboard(Method::POST, "/api-keys", r#"{"name": "ci"}"#);
    }
    let person = lua.person();
    person.lua(&format!("auth configure --email {ADA}"));
    let said = lua.verifies(&person, &lua.mailed_code());
    said.fails(1, "the limit of 5 active keys is reached: revoke one");
    assert_eq!(person.stored(), None);
    person.lua("auth configure --email adä@example.com").fails(1, "invalid e-mail address");
}

/// Beyond the page: five codes an hour.
fn too_many_codes_are_refused_with_a_time(place: &Place) {
    let lua = Lua::start(place);
    let ask = || lua.person().lua(&format!("auth configure --email {ADA}"));
    let refused = (0..11).map(|_| ask()).find(|said| said.status != 0);
    // An hour may have begun in between.
    refused.expect("of eleven, one").fails(1, "Too many attempts. Wait ");
}

/// Beyond the page: `logout --revoke` ends the key on the server, too.
fn logout_can_revoke(place: &Place) {
    let lua = Lua::start(place);
    let person = lua.person();
    let key = lua.signs_in(&person);
    assert_eq!(person.lua("auth logout --force --revoke").status, 0);
    person.with_variable(&key).lua("push").fails(4, "❌ Authentication failed");
}

/// > Error: No API key found. Authenticate using one of: lua auth configure; export LUA_API_KEY=…;
/// > echo "LUA_API_KEY=key" >> .env
fn no_api_key_found_leads_to_three_ways_that_work(place: &Place) {
    let lua = Lua::start(place);
    let said = lua.person().lua("push");
    said.fails(4, "No API key found");
    for way in ["`lua auth configure`", "LUA_API_KEY", ".env file"] {
        assert!(said.err.contains(way), "{way}: {}", said.err);
    }
    let first = lua.person();
    let key = lua.signs_in(&first);
    assert!(pushes(&first));
    assert!(pushes(&lua.person().with_variable(&key)));
    assert!(pushes(&lua.person().with_dotenv(&format!("LUA_API_KEY={key}\n"))));
}

/// > Didn't receive OTP email: Check spam/junk folder. Wait a few minutes (can take up to 5 min). Try
/// > again with lua auth configure. Use API Key method instead.
fn a_code_that_takes_five_minutes_or_is_asked_for_again_works(place: &Place) {
    let lua = Lua::start(place);
    let asked = lua.person().lua(&format!("auth configure --email {ADA}"));
    assert!(asked.out.contains("may take a few minutes"), "{}", asked.out);
    assert!(asked.out.contains("spam folder"), "{}", asked.out);
    let slow = lua.later("300");
    assert_eq!(lua.verifies(&Person::at(slow.url()), &lua.mailed_code()).status, 0);
    let person = lua.person();
    person.lua(&format!("auth configure --email {ADA}"));
    lua.mailed_code();
    lua.signs_in(&person);
}

/// > Error: ❌ Invalid OTP code. Double-check the code from email. OTP expires after 10 minutes.
/// > Request new OTP by running command again.
fn a_wrong_or_old_code_is_refused_and_a_new_one_helps(place: &Place) {
    let lua = Lua::start(place);
    let person = lua.person();
    person.lua(&format!("auth configure --email {ADA}"));
    let code = lua.mailed_code();
    let wrong = if code == "123456" { "654321" } else { "123456" };
    let said = lua.verifies(&person, wrong);
    said.fails(4, "❌ Invalid OTP code");
    said.fails(4, "Double-check the code from the email, or request a new one");
    assert_eq!(person.stored(), None);

    let ten_minutes_later = lua.later("600");
    let late = lua.verifies(&Person::at(ten_minutes_later.url()), &code);
    late.fails(4, "❌ Expired OTP code. Request a new one");
    lua.signs_in(&person);
    assert!(pushes(&person));
}

/// Beyond the page: nobody learns who has an account, and nobody guesses.
fn an_address_without_an_account_looks_like_any_other(place: &Place) {
    let lua = Lua::start(place);
    let said = |address: &str| {
        let person = lua.person();
        let asked = person.lua(&format!("auth configure --email {address}"));
        let verified = person.lua(&format!("auth configure --email {address} --otp 12345"));
        assert_eq!(asked.status, 0, "{}", asked.err);
        [asked.out, asked.err, verified.out, verified.err].concat().replace(address, "ADDRESS")
    };
    assert_eq!(said("nobody@example.com"), said(ADA));
    let printed = lua
        .server
        .prints("a letter for Ada", |printed| printed.contains("To: ").then(|| printed.to_owned()));
    assert!(!printed.contains("To: nobody@example.com"), "{printed}");
}

/// > Error: ❌ Authentication failed. Verify you copied the complete key. Check key hasn't been
/// > revoked. Ensure no extra spaces. Generate new key via email method.
fn authentication_fails_for_what_is_no_live_key_and_says_what_to_do(place: &Place) {
    let lua = Lua::start(place);
    let person = lua.person();
    let key = lua.signs_in(&person);

    let cut = lua.person().lua_given("auth configure -", &key[..20]);
    cut.fails(4, "it has 20 characters");
    let inside =
        lua.person().lua_given("auth configure -", &format!("{} {}", &key[..20], &key[20..]));
    inside.fails(4, "a space or a line break inside");
    let around = lua.person();
    assert_eq!(around.lua_given("auth configure -", &format!("  {key} \n")).status, 0);
    assert!(pushes(&around), "spaces around it do not matter");

    lua.revokes();
    person.lua("push").fails(4, "❌ Authentication failed");
    let said = lua.person().lua_given("auth configure -", &key);
    said.fails(4, "❌ Authentication failed");
    for advice in ["copied the complete key", "revoked", "no extra spaces", "a new one"] {
        assert!(said.err.contains(advice), "{advice}: {}", said.err);
    }
    lua.signs_in(&person);
    assert!(pushes(&person), "a new one by e-mail");
}

/// > Starting in v3.9.0, credentials are stored in ~/.lua-cli/credentials. One-time migration step:
/// > lua auth configure. Or set the environment variable directly.
fn configuring_once_more_is_the_migration(place: &Place) {
    let lua = Lua::start(place);
    let key = lua.signs_in(&lua.person());
    let person = lua.person();
    assert_eq!(person.lua_given("auth configure -", &key).status, 0);
    assert_eq!(person.stored(), Some(key));
    assert!(pushes(&person));
}

in_each_place!(blocking [sqlite, postgres] {
    the_cli_requires_authentication,
    a_key_from_elsewhere_is_set_in_one_shot,
    a_code_from_the_mail_becomes_a_key_in_two_steps,
    the_interactive_setup_shows_no_key,
    credentials_are_in_a_plain_file_of_the_owner_alone,
    the_variable_alone_is_enough,
    the_variable_comes_before_the_file_and_the_file_before_dotenv,
    the_key_is_displayed_after_a_confirmation_or_by_force,
    logout_removes_the_local_copy_and_nothing_else,
    a_key_that_is_regenerated_ends_the_former_one,
    the_right_code_comes_too_late_behind_five_wrong_ones,
    a_plan_that_is_full_and_an_address_that_cannot_be_are_told,
    too_many_codes_are_refused_with_a_time,
    logout_can_revoke,
    no_api_key_found_leads_to_three_ways_that_work,
    a_code_that_takes_five_minutes_or_is_asked_for_again_works,
    a_wrong_or_old_code_is_refused_and_a_new_one_helps,
    an_address_without_an_account_looks_like_any_other,
    authentication_fails_for_what_is_no_live_key_and_says_what_to_do,
    configuring_once_more_is_the_migration,
});
