use std::io::{self, Read, Write};

use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr,
};
use zeroize::Zeroizing;

use super::Typed;

/// Asks, and reads a line from the terminal on standard input; none if it was cancelled by Ctrl-C or Ctrl-D.
// Not `rpassword`: there, Ctrl-C ends the process while the terminal echoes nothing, and leaves it so.
pub(super) fn read(question: &str, typed: Typed) -> io::Result<Option<Zeroizing<String>>> {
    // Before the question: who pastes at once is not to see the key.
    let _raw = Raw::enter()?;
    write!(io::stderr(), "{question} ")?;
    let mut stdin = io::stdin().lock();
    let mut next = || -> io::Result<Option<u8>> {
        let mut byte = [0];
        loop {
            match stdin.read(&mut byte) {
                Ok(0) => return Ok(None),
                Ok(_) => return Ok(Some(byte[0])),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    };
    // Its full capacity at once: a growing buffer would leave parts of the key behind.
    let mut line = Zeroizing::new(Vec::with_capacity(MAX));
    while let Some(byte) = next()? {
        match byte {
            b'\r' | b'\n' => {
                let text = std::str::from_utf8(&line).map_err(io::Error::other)?;
                return Ok(Some(Zeroizing::new(text.to_owned())));
            }
            INTERRUPT => return Ok(None),
            END if line.is_empty() => return Ok(None),
            BACKSPACE | DELETE => erase(&mut line, typed)?,
            KILL_LINE => {
                while !line.is_empty() {
                    erase(&mut line, typed)?;
                }
            }
            // A key such as an arrow: its letters are no part of the line.
            ESCAPE if next()? == Some(b'[') => {
                while next()?.is_some_and(|byte| !(0x40..=0x7e).contains(&byte)) {}
            }
            0x20.. if line.len() < MAX => {
                line.push(byte);
                show(&[byte], typed)?;
            }
            _ => {}
        }
    }
    Ok(None)
}

fn erase(line: &mut Vec<u8>, typed: Typed) -> io::Result<()> {
    while let Some(byte) = line.pop() {
        // One character may be several bytes.
        if byte & 0xc0 != 0x80 {
            return show(b"\x08 \x08", typed);
        }
    }
    Ok(())
}

fn show(bytes: &[u8], typed: Typed) -> io::Result<()> {
    match typed {
        Typed::Shown => io::stderr().write_all(bytes),
        Typed::Hidden => Ok(()),
    }
}

/// The terminal hands over each byte, echoes none, and makes no signal of Ctrl-C; until this is dropped.
struct Raw(Termios);

impl Raw {
    fn enter() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.local_modes -=
            LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG | LocalModes::IEXTEN;
        raw.special_codes[SpecialCodeIndex::VMIN] = 1;
        raw.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

const INTERRUPT: u8 = 0x03;
const END: u8 = 0x04;
const BACKSPACE: u8 = 0x08;
const KILL_LINE: u8 = 0x15;
const ESCAPE: u8 = 0x1b;
const DELETE: u8 = 0x7f;
/// Longer than any key or address.
const MAX: usize = 1024;
