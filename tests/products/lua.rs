//! The product page of the Lua CLI: `examples/lua_cli` with `examples/lua_server`, over HTTP.

use std::{cell::Cell, fs, path::PathBuf};

use keyward::Secret;
use reqwest::Method;
use serde_json::Value;
use tempfile::TempDir;

use super::backend::{Backend, on_each_backend};
use crate::{
    client::support::{CommandResult, Terminal, TestUser, mode},
    support::examples::Serving,
};

const ADA: &str = "ada@example.com";

/// A running server. It prints the emails that it sends.
struct Lua {
    server: Serving,
    database: String,
    folder: TempDir,
    emails_read: Cell<usize>,
}

impl Lua {
    fn start(backend: &Backend) -> Self {
        let (folder, database) = (tempfile::tempdir().unwrap(), backend.database().to_owned());
        fs::write(pepper(&folder), "thirty-two bytes or more, in a file").unwrap();
        let server = start_server(&folder, &database, "0");
        Self { server, database, folder, emails_read: Cell::new(0) }
    }

    /// Starts a second server on the same database, with its clock ahead by `seconds`.
    fn start_later(&self, seconds: &str) -> Serving {
        start_server(&self.folder, &self.database, seconds)
    }

    fn user(&self) -> TestUser {
        TestUser::with_server_url(self.server.url())
    }

    /// Waits for the next email and returns its code.
    fn mailed_code(&self) -> String {
        let index = self.emails_read.get();
        let find = |printed: &str| {
            let digits = |line: &&str| line.len() == 6 && line.bytes().all(|b| b.is_ascii_digit());
            printed.lines().filter(digits).nth(index).map(str::to_owned)
        };
        let code = self.server.prints("an email", find);
        self.emails_read.set(index + 1);
        code
    }

    /// Signs in by email, and returns the key.
    fn sign_in(&self, user: &TestUser) -> String {
        let asked = user.lua(&format!("auth configure --email {ADA}"));
        assert_eq!(asked.status, 0, "{}", asked.stderr);
        let stored = self.verify_code(user, &self.mailed_code());
        assert_eq!(stored.status, 0, "{}", stored.stderr);
        user.stored_key().expect("the key is stored")
    }

    fn verify_code(&self, user: &TestUser, code: &str) -> CommandResult {
        user.lua(&format!("auth configure --email {ADA} --otp {code}"))
    }

    /// Sends a request of the dashboard in Ada's session.
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

    /// Returns the id of Ada's only key.
    fn key_id(&self) -> String {
        let listed = self.dashboard(Method::GET, "/api-keys?status=active", "");
        assert_eq!(listed["keys"].as_array().unwrap().len(), 1, "{listed}");
        listed["keys"][0]["id"].as_str().unwrap().to_owned()
    }

    fn revoke_key(&self) {
        self.dashboard(Method::DELETE, &format!("/api-keys/{}", self.key_id()), "");
    }
}

fn start_server(folder: &TempDir, database: &str, ahead: &str) -> Serving {
    let pepper = pepper(folder);
    let pepper = ["--pepper", pepper.to_str().unwrap()];
    let arguments = [&["--database", database], &pepper[..], &["--clock-ahead", ahead]];
    Serving::start("lua_server", &arguments.concat())
}

fn pepper(folder: &TempDir) -> PathBuf {
    folder.path().join("pepper")
}

fn can_push(user: &TestUser) -> bool {
    let result = user.lua("push");
    assert!([0, 4].contains(&result.status), "{}", result.stderr);
    result.status == 0
}

/// > Lua CLI requires authentication to access the platform and deploy skills.
fn the_cli_requires_authentication(backend: &Backend) {
    let lua = Lua::start(backend);
    lua.user().lua("push").assert_fails(4, "No API key found");
    let user = lua.user();
    lua.sign_in(&user);
    assert!(can_push(&user));
}

/// > configure: Set up authentication. key: Display stored key. logout: Remove credentials.
#[test]
fn the_commands_are_configure_key_and_logout() {
    let help = TestUser::new().lua("auth --help").stdout;
    for line in ["configure  Set up authentication", "key        Display", "logout     Remove"] {
        assert!(help.contains(line), "{help}");
    }
}

/// > Both methods support fully non-interactive flows for CI, scripts, and AI IDEs.
/// > Direct API key (one shot): lua auth configure --api-key "lk_xxx..."
/// > Use case: Copying to another machine: Get key to set up elsewhere.
fn a_key_is_set_in_one_command(backend: &Backend) {
    let lua = Lua::start(backend);
    let (first, second) = (lua.user(), lua.user());
    lua.sign_in(&first);
    let key = first.lua("auth key --force").stdout;
    let result = second.lua(&format!("auth configure --api-key {}", key.trim()));
    assert_eq!(result.status, 0, "{}", result.stderr);
    assert!(can_push(&first) && can_push(&second));
}

/// > Email OTP — request a code: lua auth configure --email … (CLI prints "Check your email for a
/// > 6-digit code.")
/// > Email OTP — verify and store: lua auth configure --email … --otp 123456
/// > --email: Request an OTP to be sent to this email. Step 1 of the OTP flow.
/// > --otp: Verify the 6-digit code from email and generate an API key. Step 2 (combine with --email).
fn an_email_code_is_exchanged_for_a_key_in_two_steps(backend: &Backend) {
    let lua = Lua::start(backend);
    let user = lua.user();
    let asked = user.lua(&format!("auth configure --email {ADA}"));
    assert_eq!(asked.status, 0, "{}", asked.stderr);
    assert!(asked.stdout.contains("Check your email for a 6-digit code."), "{}", asked.stdout);
    assert_eq!(user.stored_key(), None);
    let code = lua.mailed_code();
    user.lua(&format!("auth configure --otp {code}")).assert_fails(2, "--email");
    assert_eq!(lua.verify_code(&user, &code).status, 0);
    assert!(user.stored_key().unwrap().starts_with("lk_"));
    assert!(can_push(&user));
    lua.verify_code(&lua.user(), &code).assert_fails(4, "❌ Invalid OTP code");
    assert!(lua.server.printed().contains(&format!("To: {ADA}")));
}

/// > The OTP flow is intended for first-time setup on developer machines.
/// > Recommended for individual developers — automatic key management, no manual key to remember.
/// > Try again with lua auth configure. (Interactive setup)
fn interactive_setup_never_displays_the_key(backend: &Backend) {
    let lua = Lua::start(backend);
    let user = lua.user();
    let terminal = Terminal::start(&user, "auth configure");
    terminal.wait_for("leave empty to sign in by email");
    terminal.type_text("\r");
    terminal.wait_for("? Your email address:");
    terminal.type_text(&format!("{ADA}\r"));
    terminal.wait_for("? Check your email for a 6-digit code");
    terminal.type_text(&format!("{}\r", lua.mailed_code()));
    let seen = terminal.wait_for_exit(0);
    assert!(!seen.contains(&user.stored_key().unwrap()), "{seen}");
    assert!(can_push(&user));
}

/// > Credentials are stored in a plain-text file with owner-only permissions (0600):
/// > ~/.lua-cli/credentials
/// > This file is created automatically by lua auth configure. It is never committed to version
/// > control and is only readable by your user account.
fn credentials_are_in_a_plain_text_file_with_mode_0600(backend: &Backend) {
    let lua = Lua::start(backend);
    let user = lua.user();
    let file = user.home().join(".lua-cli/credentials");
    assert!(!file.exists());
    user.lua(&format!("auth configure --email {ADA}"));
    assert_eq!(lua.verify_code(&user, &lua.mailed_code()).status, 0);
    // Checked before any read, which would correct the modes.
    assert_eq!((mode(&file), mode(&user.credentials_dir())), (0o600, 0o700));
    let key = user.stored_key().unwrap();
    assert!(fs::read_to_string(&file).unwrap().contains(&key), "plain text");
    let project = fs::read_dir(user.project()).unwrap().count();
    assert_eq!(project, 0, "no file is created in the project");
}

/// > For CI/CD, Docker, and headless servers, set the LUA_API_KEY environment variable directly — no
/// > credentials file needed. export LUA_API_KEY=your-api-key; lua push
/// > Inject the key as an environment variable or secret. (GitHub Actions, docker run -e)
/// > CI/CD configuration: Copy key for automated deployments.
fn the_environment_variable_needs_no_file(backend: &Backend) {
    let lua = Lua::start(backend);
    let key = lua.sign_in(&lua.user());
    let machine = lua.user().with_env_var(&key);
    assert!(can_push(&machine));
    assert!(!machine.credentials_dir().exists());
}

/// > The environment variable always takes priority over the credentials file.
/// > 1 LUA_API_KEY env var, 2 ~/.lua-cli/credentials, 3 .env file
/// > API keys are resolved from environment variables, a local credentials file, or a .env file — no
/// > system keychain is required.
/// > Verification: Confirm which key is currently configured.
fn resolution_order_is_variable_then_file_then_dotenv(backend: &Backend) {
    let lua = Lua::start(backend);
    let keys = [(); 3].map(|()| lua.sign_in(&lua.user()));
    let [variable, file, dotenv] = &keys;
    let confirm = |user: &TestUser, key: &str| {
        assert_eq!(user.lua("auth key --force").stdout.trim(), key);
        assert!(user.lua("push").stdout.contains(&key[..11]), "the key that is used is shown");
    };
    let user = lua.user().with_dotenv(&format!("LUA_API_KEY={dotenv}\n"));
    confirm(&user, dotenv);
    let user = user.with_stored_key(&Secret::from(file.clone()));
    confirm(&user, file);
    confirm(&user.with_env_var(variable), variable);
}

/// > For security, you must confirm before displaying the key:
/// > ? This will display your API key. Are you sure you want to continue? Yes
/// > 🔑 Your API key: api_abc123def456...
/// > Use --force to skip the confirmation prompt (useful in scripts)
fn the_key_is_displayed_after_confirmation_or_with_force(backend: &Backend) {
    let lua = Lua::start(backend);
    let user = lua.user();
    let key = lua.sign_in(&user);
    for (answer, status) in [("Yes", 0), ("No", 2)] {
        let terminal = Terminal::start(&user, "auth key");
        terminal.wait_for("? This will display your API key. Are you sure you want to continue?");
        terminal.type_text(&format!("{answer}\r"));
        let seen = terminal.wait_for_exit(status);
        assert_eq!(seen.contains(&key), status == 0, "{seen}");
        assert_eq!(seen.contains("🔑 Your API key:"), status == 0, "{seen}");
    }
    user.lua("auth key").assert_fails(2, "--force");
    assert_eq!(user.lua("auth key --force").stdout.trim(), key);
}

/// > Delete the stored credentials file. ? Are you sure you want to delete your API key? This action
/// > cannot be undone. Yes. API key deleted successfully. Use --force to skip the confirmation.
/// > Credentials File Removed: ~/.lua-cli/credentials is deleted.
/// > CLI Access Lost: You'll need to run lua auth configure or set LUA_API_KEY to use the CLI again.
/// > Key Still Valid on Server: The key is NOT invalidated on the server — it just removes the local
/// > copy. After logout, the key still works if used elsewhere (e.g. as an env var).
/// > Use lua auth logout when done on shared machines.
fn logout_removes_only_the_local_copy(backend: &Backend) {
    let lua = Lua::start(backend);
    let user = lua.user();
    let key = lua.sign_in(&user);
    let file = user.home().join(".lua-cli/credentials");
    for (answer, status) in [("No", 2), ("Yes", 0)] {
        let terminal = Terminal::start(&user, "auth logout");
        terminal.wait_for(
            "? Are you sure you want to delete your API key? This action cannot be undone.",
        );
        terminal.type_text(&format!("{answer}\r"));
        let seen = terminal.wait_for_exit(status);
        assert_eq!(seen.contains("API key deleted successfully."), status == 0, "{seen}");
        assert_eq!(file.exists(), status != 0);
    }
    user.lua("push").assert_fails(4, "No API key found");
    assert!(can_push(&lua.user().with_env_var(&key)), "the key still works elsewhere");
    let again = user.lua_with_stdin("auth configure -", &key);
    assert_eq!(again.status, 0, "{}", again.stderr);
    assert!(can_push(&user));
    let result = user.lua("auth logout --force");
    assert_eq!(result.stdout, "API key deleted successfully.\n");
    assert!(!file.exists());
}

/// > To fully revoke access, regenerate a new key from the admin dashboard.
/// > Rotate keys regularly.
fn regenerating_a_key_invalidates_the_old_one(backend: &Backend) {
    let lua = Lua::start(backend);
    let user = lua.user();
    lua.sign_in(&user);
    let rotate = format!("/api-keys/{}/rotate", lua.key_id());
    let rotated = lua.dashboard(Method::POST, &rotate, "");
    user.lua("push").assert_fails(4, "❌ Authentication failed");
    let result = user.lua_with_stdin("auth configure -", rotated["key"].as_str().unwrap());
    assert_eq!(result.status, 0, "{}", result.stderr);
    assert!(can_push(&user));
}

/// Not on the page: a code allows five attempts.
fn five_wrong_codes_invalidate_the_right_one(backend: &Backend) {
    let lua = Lua::start(backend);
    let user = lua.user();
    user.lua(&format!("auth configure --email {ADA}"));
    let code = lua.mailed_code();
    let wrong = if code == "123456" { "654321" } else { "123456" };
    for _ in 0..5 {
        lua.verify_code(&user, wrong).assert_fails(4, "❌ Invalid OTP code");
    }
    lua.verify_code(&user, &code).assert_fails(4, "❌ Invalid OTP code");
}

/// Not on the page: the server's reason for a refusal is shown, and nothing is stored.
fn a_full_plan_and_an_invalid_address_are_reported(backend: &Backend) {
    let lua = Lua::start(backend);
    for _ in 0..5 {
        lua.dashboard(Method::POST, "/api-keys", r#"{"name": "ci"}"#);
    }
    let user = lua.user();
    user.lua(&format!("auth configure --email {ADA}"));
    let result = lua.verify_code(&user, &lua.mailed_code());
    result.assert_fails(1, "the limit of 5 active keys is reached: revoke one");
    assert_eq!(user.stored_key(), None);
    user.lua("auth configure --email adä@example.com").assert_fails(1, "invalid e-mail address");
}

/// Not on the page: five codes per hour.
fn too_many_code_requests_are_rejected_with_a_wait_time(backend: &Backend) {
    let lua = Lua::start(backend);
    let ask = || lua.user().lua(&format!("auth configure --email {ADA}"));
    let refused = (0..11).map(|_| ask()).find(|result| result.status != 0);
    // A new hour may begin between the requests, so up to ten may be accepted.
    refused.expect("one of eleven is rejected").assert_fails(1, "Too many attempts. Wait ");
}

/// Not on the page: `logout --revoke` also revokes the key on the server.
fn logout_can_revoke_the_key(backend: &Backend) {
    let lua = Lua::start(backend);
    let user = lua.user();
    let key = lua.sign_in(&user);
    assert_eq!(user.lua("auth logout --force --revoke").status, 0);
    user.with_env_var(&key).lua("push").assert_fails(4, "❌ Authentication failed");
}

/// > Error: No API key found. Authenticate using one of: lua auth configure; export LUA_API_KEY=…;
/// > echo "LUA_API_KEY=key" >> .env
fn no_api_key_found_names_three_ways_that_work(backend: &Backend) {
    let lua = Lua::start(backend);
    let result = lua.user().lua("push");
    result.assert_fails(4, "No API key found");
    for way in ["`lua auth configure`", "LUA_API_KEY", ".env file"] {
        assert!(result.stderr.contains(way), "{way}: {}", result.stderr);
    }
    let first = lua.user();
    let key = lua.sign_in(&first);
    assert!(can_push(&first));
    assert!(can_push(&lua.user().with_env_var(&key)));
    assert!(can_push(&lua.user().with_dotenv(&format!("LUA_API_KEY={key}\n"))));
}

/// > Didn't receive OTP email: Check spam/junk folder. Wait a few minutes (can take up to 5 min). Try
/// > again with lua auth configure. Use API Key method instead.
fn a_late_code_and_a_second_code_work(backend: &Backend) {
    let lua = Lua::start(backend);
    let asked = lua.user().lua(&format!("auth configure --email {ADA}"));
    assert!(asked.stdout.contains("may take a few minutes"), "{}", asked.stdout);
    assert!(asked.stdout.contains("spam folder"), "{}", asked.stdout);
    let slow = lua.start_later("300");
    assert_eq!(
        lua.verify_code(&TestUser::with_server_url(slow.url()), &lua.mailed_code()).status,
        0
    );
    let user = lua.user();
    user.lua(&format!("auth configure --email {ADA}"));
    lua.mailed_code();
    lua.sign_in(&user);
}

/// > Error: ❌ Invalid OTP code. Double-check the code from email. OTP expires after 10 minutes.
/// > Request new OTP by running command again.
fn wrong_and_expired_codes_are_rejected_and_a_new_code_works(backend: &Backend) {
    let lua = Lua::start(backend);
    let user = lua.user();
    user.lua(&format!("auth configure --email {ADA}"));
    let code = lua.mailed_code();
    let wrong = if code == "123456" { "654321" } else { "123456" };
    let result = lua.verify_code(&user, wrong);
    result.assert_fails(4, "❌ Invalid OTP code");
    result.assert_fails(4, "Double-check the code from the email, or request a new one");
    assert_eq!(user.stored_key(), None);

    let ten_minutes_later = lua.start_later("600");
    let late = lua.verify_code(&TestUser::with_server_url(ten_minutes_later.url()), &code);
    late.assert_fails(4, "❌ Expired OTP code. Request a new one");
    lua.sign_in(&user);
    assert!(can_push(&user));
}

/// Not on the page: responses do not reveal which addresses have accounts.
fn an_unknown_address_is_indistinguishable_from_a_known_one(backend: &Backend) {
    let lua = Lua::start(backend);
    let result = |address: &str| {
        let user = lua.user();
        let asked = user.lua(&format!("auth configure --email {address}"));
        let verified = user.lua(&format!("auth configure --email {address} --otp 12345"));
        assert_eq!(asked.status, 0, "{}", asked.stderr);
        [asked.stdout, asked.stderr, verified.stdout, verified.stderr]
            .concat()
            .replace(address, "ADDRESS")
    };
    assert_eq!(result("nobody@example.com"), result(ADA));
    let printed = lua
        .server
        .prints("an email for Ada", |printed| printed.contains("To: ").then(|| printed.to_owned()));
    assert!(!printed.contains("To: nobody@example.com"), "{printed}");
}

/// > Error: ❌ Authentication failed. Verify you copied the complete key. Check key hasn't been
/// > revoked. Ensure no extra spaces. Generate new key via email method.
fn authentication_failures_say_what_to_do(backend: &Backend) {
    let lua = Lua::start(backend);
    let user = lua.user();
    let key = lua.sign_in(&user);

    let cut = lua.user().lua_with_stdin("auth configure -", &key[..20]);
    cut.assert_fails(4, "it has 20 characters");
    let inside =
        lua.user().lua_with_stdin("auth configure -", &format!("{} {}", &key[..20], &key[20..]));
    inside.assert_fails(4, "contains a space or a line break");
    let around = lua.user();
    assert_eq!(around.lua_with_stdin("auth configure -", &format!("  {key} \n")).status, 0);
    assert!(can_push(&around), "surrounding spaces are ignored");

    lua.revoke_key();
    user.lua("push").assert_fails(4, "❌ Authentication failed");
    let result = lua.user().lua_with_stdin("auth configure -", &key);
    result.assert_fails(4, "❌ Authentication failed");
    for advice in ["copied the complete key", "revoked", "no extra spaces", "a new one"] {
        assert!(result.stderr.contains(advice), "{advice}: {}", result.stderr);
    }
    lua.sign_in(&user);
    assert!(can_push(&user), "a new key by email");
}

/// > Starting in v3.9.0, credentials are stored in ~/.lua-cli/credentials. One-time migration step:
/// > lua auth configure. Or set the environment variable directly.
fn running_configure_again_migrates_credentials(backend: &Backend) {
    let lua = Lua::start(backend);
    let key = lua.sign_in(&lua.user());
    let user = lua.user();
    assert_eq!(user.lua_with_stdin("auth configure -", &key).status, 0);
    assert_eq!(user.stored_key(), Some(key));
    assert!(can_push(&user));
}

on_each_backend!(blocking [sqlite, postgres] {
    the_cli_requires_authentication,
    a_key_is_set_in_one_command,
    an_email_code_is_exchanged_for_a_key_in_two_steps,
    interactive_setup_never_displays_the_key,
    credentials_are_in_a_plain_text_file_with_mode_0600,
    the_environment_variable_needs_no_file,
    resolution_order_is_variable_then_file_then_dotenv,
    the_key_is_displayed_after_confirmation_or_with_force,
    logout_removes_only_the_local_copy,
    regenerating_a_key_invalidates_the_old_one,
    five_wrong_codes_invalidate_the_right_one,
    a_full_plan_and_an_invalid_address_are_reported,
    too_many_code_requests_are_rejected_with_a_wait_time,
    logout_can_revoke_the_key,
    no_api_key_found_names_three_ways_that_work,
    a_late_code_and_a_second_code_work,
    wrong_and_expired_codes_are_rejected_and_a_new_code_works,
    an_unknown_address_is_indistinguishable_from_a_known_one,
    authentication_failures_say_what_to_do,
    running_configure_again_migrates_credentials,
});
