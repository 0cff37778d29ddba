#[cfg(unix)]
#[path = "unix.rs"]
mod line;
#[cfg(not(unix))]
#[path = "elsewhere.rs"]
mod line;

use std::io::{self, IsTerminal, Write};

use zeroize::Zeroizing;

use super::console::Failure;

/// Whether what is typed can be seen.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Typed {
    Shown,
    Hidden,
}

/// Whether there is somebody to ask.
pub(super) fn can_ask() -> bool {
    io::stdin().is_terminal()
}

/// Asks on standard error, so that standard output has the answer alone.
pub(super) fn ask(question: &str, typed: Typed) -> Result<Zeroizing<String>, Failure> {
    let answer = line::read(question, typed);
    let _ = writeln!(io::stderr());
    match answer {
        Ok(Some(answer)) => Ok(answer),
        Ok(None) => Err(Failure::cancelled()),
        Err(error) => Err(Failure::error(format!("the terminal cannot be used: {error}"))),
    }
}

/// Asks for a yes. Anything else is a no, and cancels.
pub(super) fn confirm(question: &str) -> Result<(), Failure> {
    let answer = ask(&format!("? {question} (y/N)"), Typed::Shown)?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::cancelled()),
    }
}
