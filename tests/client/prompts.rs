use super::support::{AuthServer, Terminal, TestUser, key};

const CTRL_C: &str = "\x03";

#[test]
fn a_typed_key_is_never_displayed() {
    let (user, key) = (TestUser::new(), key());
    let terminal = Terminal::start(&user, "auth configure");
    terminal.wait_for("Your API key (input is hidden");
    assert!(!terminal.is_echoing(), "echo is off before the prompt appears");
    terminal.type_text(&format!("  {} \r", key.expose()));
    let seen = terminal.wait_for_exit(0);
    assert!(seen.contains("******** stored in"), "{seen}");
    let (hint, body) = (&key.expose()[..11], &key.expose()[11..]);
    assert!(seen.contains(hint) && !seen.contains(&body[..4]), "{seen}");
    assert_eq!(user.stored_key().as_deref(), Some(key.expose()));
}

#[test]
fn the_mask_has_a_fixed_width() {
    let (user, key) = (TestUser::new(), key());
    let user = user.with_stored_key(&key);
    let terminal = Terminal::start(&user, "auth status");
    let seen = terminal.wait_for_exit(0);
    assert!(seen.contains(&format!("{}********\r\n", &key.expose()[..11])), "{seen}");
}

#[test]
fn input_can_be_edited() {
    let (user, key) = (TestUser::new(), key());
    let terminal = Terminal::start(&user, "auth configure");
    terminal.wait_for("Your API key");
    // Wrong input, deleted with Ctrl-U; an arrow key; a wrong letter, deleted with backspace.
    terminal.type_text(&format!("nonsense\x15\x1b[C{}é\x7f\r", key.expose()));
    let seen = terminal.wait_for_exit(0);
    assert!(!seen.contains("nonsense"), "{seen}");
    assert_eq!(user.stored_key().as_deref(), Some(key.expose()));
}

#[test]
fn ctrl_c_changes_nothing_and_restores_the_terminal() {
    for arguments in ["auth configure", "auth configure --api-key-stdin", "auth key", "auth logout"]
    {
        let (user, key) = (TestUser::new(), key());
        let user = user.with_stored_key(&key);
        let terminal = Terminal::start(&user, arguments);
        terminal.wait_for("? ");
        terminal.type_text(&format!("half of it{CTRL_C}"));
        let seen = terminal.wait_for_exit(2);
        assert!(seen.contains("Cancelled; nothing was changed"), "{seen}");
        assert!(!seen.contains(key.expose()), "{seen}");
        assert_eq!(user.stored_key().as_deref(), Some(key.expose()), "{arguments}");
    }
}

#[test]
fn the_key_is_shown_only_after_yes() {
    let (user, key) = (TestUser::new(), key());
    let user = user.with_stored_key(&key);
    for (answer, status) in
        [("y", 0), ("yes", 0), ("Yes", 0), ("n", 2), ("", 2), ("yo", 2), ("\x04", 2)]
    {
        let terminal = Terminal::start(&user, "auth key");
        terminal.wait_for("? This will display your API key. Are you sure you want to continue?");
        terminal.type_text(&format!("{answer}\r"));
        let seen = terminal.wait_for_exit(status);
        assert_eq!(seen.contains(key.expose()), status == 0, "{answer:?}: {seen}");
        assert_eq!(seen.contains("🔑 Your API key:"), status == 0, "{answer:?}: {seen}");
    }
}

#[test]
fn logout_asks_for_confirmation() {
    let (user, key) = (TestUser::new(), key());
    let user = user.with_stored_key(&key);
    for (answer, status) in [("n", 2), ("y", 0)] {
        let terminal = Terminal::start(&user, "auth logout");
        terminal.wait_for(
            "? Are you sure you want to delete your API key? This action cannot be undone.",
        );
        terminal.type_text(&format!("{answer}\r"));
        let seen = terminal.wait_for_exit(status);
        assert_eq!(seen.contains("API key deleted successfully."), status == 0, "{seen}");
        assert_eq!(user.stored_key().is_none(), status == 0);
    }
}

#[test]
fn email_sign_in_asks_for_an_address_and_a_code() {
    let server = AuthServer::start();
    let user = TestUser::with_server(&server);
    let terminal = Terminal::start(&user, "auth configure");
    terminal.wait_for("leave empty to sign in by email");
    terminal.type_text("\r");
    terminal.wait_for("? Your email address:");
    terminal.type_text("ada@example.com\r");
    terminal.wait_for("? Check your email for a 6-digit code");
    terminal.type_text(&format!("{}\r", server.last_code()));
    let seen = terminal.wait_for_exit(0);
    let stored = user.stored_key().expect("the key is stored");
    assert!(server.is_valid(&stored));
    assert!(!seen.contains(&stored), "{seen}");
    assert!(seen.contains("ada@example.com"), "the address is echoed: {seen}");
}

#[test]
fn colours_appear_only_on_a_terminal_without_no_color() {
    let user = TestUser::new();
    let terminal = Terminal::start(&user, "auth status");
    assert!(terminal.wait_for_exit(4).contains("\x1b["));
    assert!(!user.lua("auth status").stderr.contains('\x1b'));
    let plain = Terminal::start_with(&user, "auth status", &[("NO_COLOR", "1")]);
    assert!(!plain.wait_for_exit(4).contains('\x1b'));
}
