//! Checks the log of the whole run, at level TRACE, for secrets. A line that contains one aborts the run.

use std::{
    io::{self, Write},
    process::abort,
    sync::{LazyLock, Once},
};

use regex::Regex;

/// Installs the checker, once for all tests.
pub fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(|| SecretChecker)
            .init();
    });
}

struct SecretChecker;

/// Each call receives one complete line of the log.
impl Write for SecretChecker {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        if holds_a_secret(&text) {
            // A panic could be caught by the code under test.
            eprintln!("A SECRET IN THE LOG: {text}");
            abort();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns whether a text contains a secret in a format that the tests use: a prefix, an optional
/// environment, and at least thirty characters.
pub fn holds_a_secret(text: &str) -> bool {
    static SECRET: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"(?:lc|lnos|lk|api|lm|test|old)_(?:(?:live|dev)_)?[0-9A-Za-z]{30,}").unwrap()
    });
    SECRET.is_match(text)
}

#[test]
fn the_secret_check_finds_secrets_and_ignores_hints() {
    let secret = super::format().generate().unwrap();
    assert!(holds_a_secret(&format!("key={} ok", secret.expose())));
    assert!(!holds_a_secret(&format!("{secret:?} lc_live_a1b2c3d4")));
}
