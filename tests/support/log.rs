//! The log of the whole run at TRACE, watched for secrets: one line with one fails the run.

use std::{
    io::{self, Write},
    process::abort,
    sync::{LazyLock, Once},
};

use regex::Regex;

/// Begins to watch, once for all tests.
pub fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(|| Watcher)
            .init();
    });
}

struct Watcher;

/// One call is one line of the log, whole.
impl Write for Watcher {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        if holds_a_secret(&text) {
            // A panic here could be swallowed by the very code that is watched.
            eprintln!("A SECRET IN THE LOG: {text}");
            abort();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether a text holds a secret of any format that the tests use: prefix, perhaps environment, and
/// a body of thirty characters or more.
pub fn holds_a_secret(text: &str) -> bool {
    static SECRET: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"(?:lc|lnos|lk|api|lm|test|old)_(?:(?:live|dev)_)?[0-9A-Za-z]{30,}").unwrap()
    });
    SECRET.is_match(text)
}

#[test]
fn the_watcher_knows_a_secret_when_it_sees_one() {
    let secret = super::format().generate().unwrap();
    assert!(holds_a_secret(&format!("key={} ok", secret.expose())));
    assert!(!holds_a_secret(&format!("{secret:?} lc_live_a1b2c3d4")));
}
