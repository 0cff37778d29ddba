use std::io::{self, Write};

use zeroize::Zeroizing;

use super::Typed;

/// Asks, and reads a line from the console; none at its end.
pub(super) fn read(question: &str, typed: Typed) -> io::Result<Option<Zeroizing<String>>> {
    write!(io::stderr(), "{question} ")?;
    if typed == Typed::Hidden {
        return rpassword::read_password().map(|line| Some(Zeroizing::new(line)));
    }
    let mut line = Zeroizing::new(String::new());
    let read = io::stdin().read_line(&mut line)?;
    Ok((read > 0).then_some(line))
}
