use super::support::{Api, Person, Screen, key};

const CTRL_C: &str = "\x03";

#[test]
fn the_key_is_asked_for_and_never_seen() {
    let (person, key) = (Person::new(), key());
    let screen = Screen::start(&person, "auth configure");
    screen.shows("Your API key (it is not shown");
    assert!(!screen.echoes(), "not from the moment on at which it asks");
    screen.types(&format!("  {} \r", key.expose()));
    let seen = screen.ends(0);
    assert!(seen.contains("******** stored in"), "{seen}");
    let (hint, body) = (&key.expose()[..11], &key.expose()[11..]);
    assert!(seen.contains(hint) && !seen.contains(&body[..4]), "{seen}");
    assert_eq!(person.stored().as_deref(), Some(key.expose()));
}

#[test]
fn the_mask_is_of_one_width() {
    let (person, key) = (Person::new(), key());
    let person = person.with_stored(&key);
    let screen = Screen::start(&person, "auth status");
    let seen = screen.ends(0);
    assert!(seen.contains(&format!("{}********\r\n", &key.expose()[..11])), "{seen}");
}

#[test]
fn typing_can_be_corrected() {
    let (person, key) = (Person::new(), key());
    let screen = Screen::start(&person, "auth configure");
    screen.shows("Your API key");
    // A wrong start, wiped; an arrow; a wrong letter, taken back.
    screen.types(&format!("nonsense\x15\x1b[C{}é\x7f\r", key.expose()));
    let seen = screen.ends(0);
    assert!(!seen.contains("nonsense"), "{seen}");
    assert_eq!(person.stored().as_deref(), Some(key.expose()));
}

#[test]
fn ctrl_c_changes_nothing_and_gives_the_terminal_back() {
    for arguments in ["auth configure", "auth configure --api-key-stdin", "auth key", "auth logout"]
    {
        let (person, key) = (Person::new(), key());
        let person = person.with_stored(&key);
        let screen = Screen::start(&person, arguments);
        screen.shows("? ");
        screen.types(&format!("half of it{CTRL_C}"));
        let seen = screen.ends(2);
        assert!(seen.contains("Cancelled; nothing was changed"), "{seen}");
        assert!(!seen.contains(key.expose()), "{seen}");
        assert_eq!(person.stored().as_deref(), Some(key.expose()), "{arguments}");
    }
}

#[test]
fn the_key_is_shown_after_a_yes_only() {
    let (person, key) = (Person::new(), key());
    let person = person.with_stored(&key);
    for (answer, status) in
        [("y", 0), ("yes", 0), ("Yes", 0), ("n", 2), ("", 2), ("yo", 2), ("\x04", 2)]
    {
        let screen = Screen::start(&person, "auth key");
        screen.shows("? This will display your API key. Are you sure you want to continue?");
        screen.types(&format!("{answer}\r"));
        let seen = screen.ends(status);
        assert_eq!(seen.contains(key.expose()), status == 0, "{answer:?}: {seen}");
        assert_eq!(seen.contains("🔑 Your API key:"), status == 0, "{answer:?}: {seen}");
    }
}

#[test]
fn logout_asks_first() {
    let (person, key) = (Person::new(), key());
    let person = person.with_stored(&key);
    for (answer, status) in [("n", 2), ("y", 0)] {
        let screen = Screen::start(&person, "auth logout");
        screen
            .shows("? Are you sure you want to delete your API key? This action cannot be undone.");
        screen.types(&format!("{answer}\r"));
        let seen = screen.ends(status);
        assert_eq!(seen.contains("API key deleted successfully."), status == 0, "{seen}");
        assert_eq!(person.stored().is_none(), status == 0);
    }
}

#[test]
fn signing_in_by_email_takes_an_address_and_a_code() {
    let api = Api::start();
    let person = Person::of(&api);
    let screen = Screen::start(&person, "auth configure");
    screen.shows("leave it empty to sign in by email");
    screen.types("\r");
    screen.shows("? Your email address:");
    screen.types("ada@example.com\r");
    screen.shows("? Check your email for a 6-digit code");
    screen.types(&format!("{}\r", api.mailed_code()));
    let seen = screen.ends(0);
    let stored = person.stored().expect("it is stored");
    assert!(api.is_live(&stored));
    assert!(!seen.contains(&stored), "{seen}");
    assert!(seen.contains("ada@example.com"), "what is no secret is shown: {seen}");
}

#[test]
fn colours_are_for_terminals_without_no_color() {
    let person = Person::new();
    let screen = Screen::start(&person, "auth status");
    assert!(screen.ends(4).contains("\x1b["));
    assert!(!person.lua("auth status").err.contains('\x1b'));
    let plain = Screen::start_with(&person, "auth status", &[("NO_COLOR", "1")]);
    assert!(!plain.ends(4).contains('\x1b'));
}
