use std::io::{self, IsTerminal, Write};

use zeroize::Zeroizing;

use super::console::CommandError;

/// Whether the terminal shows what the user types.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Echo {
    On,
    Off,
}

/// Returns whether prompts are possible: standard input is a terminal.
pub(super) fn is_interactive() -> bool {
    io::stdin().is_terminal()
}

/// Prompts on standard error, so that standard output has only the result, and reads one line.
pub(super) fn prompt(question: &str, echo: Echo) -> Result<Zeroizing<String>, CommandError> {
    let line = platform::read_line(question, echo);
    let _ = writeln!(io::stderr());
    match line {
        Ok(Some(line)) => Ok(line),
        Ok(None) => Err(CommandError::cancelled()),
        Err(error) => Err(CommandError::other(format!("cannot read from the terminal: {error}"))),
    }
}

/// Asks a yes-or-no question. Any other answer than `y` or `yes` cancels the command.
pub(super) fn confirm(question: &str) -> Result<(), CommandError> {
    let answer = prompt(&format!("? {question} (y/N)"), Echo::On)?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(CommandError::cancelled()),
    }
}

#[cfg(not(unix))]
mod platform {
    use std::io::{self, Write};

    use zeroize::Zeroizing;

    use super::Echo;

    /// Prompts and reads a line from the console. Returns `None` at the end of input.
    pub(super) fn read_line(question: &str, echo: Echo) -> io::Result<Option<Zeroizing<String>>> {
        write!(io::stderr(), "{question} ")?;
        if echo == Echo::Off {
            return rpassword::read_password().map(|line| Some(Zeroizing::new(line)));
        }
        let mut line = Zeroizing::new(String::new());
        let read = io::stdin().read_line(&mut line)?;
        Ok((read > 0).then_some(line))
    }
}

#[cfg(unix)]
mod platform {
    use std::io::{self, Read, Write};

    use rustix::termios::{
        LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr,
    };
    use zeroize::Zeroizing;

    use super::Echo;

    /// Prompts and reads a line from standard input. Returns `None` if it was cancelled by Ctrl-C or Ctrl-D.
    // Not the crate `rpassword`: with it, Ctrl-C ends the process and leaves the terminal's echo disabled.
    pub(super) fn read_line(question: &str, echo: Echo) -> io::Result<Option<Zeroizing<String>>> {
        // Entered before the prompt is printed, so that a key pasted immediately is not echoed.
        let _raw = RawTerminal::enter()?;
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
        // Full capacity up front: a buffer that reallocates leaves copies of the key in freed memory.
        let mut line = Zeroizing::new(Vec::with_capacity(MAX_LINE_LEN));
        while let Some(byte) = next()? {
            match byte {
                b'\r' | b'\n' => {
                    let text = std::str::from_utf8(&line).map_err(io::Error::other)?;
                    return Ok(Some(Zeroizing::new(text.to_owned())));
                }
                CTRL_C => return Ok(None),
                CTRL_D if line.is_empty() => return Ok(None),
                BACKSPACE | DELETE => erase(&mut line, echo)?,
                CTRL_U => {
                    while !line.is_empty() {
                        erase(&mut line, echo)?;
                    }
                }
                // Skip the escape sequence of a key such as an arrow.
                ESCAPE if next()? == Some(b'[') => {
                    while next()?.is_some_and(|byte| !(0x40..=0x7e).contains(&byte)) {}
                }
                0x20.. if line.len() < MAX_LINE_LEN => {
                    line.push(byte);
                    write_echo(&[byte], echo)?;
                }
                _ => {}
            }
        }
        Ok(None)
    }

    fn erase(line: &mut Vec<u8>, echo: Echo) -> io::Result<()> {
        while let Some(byte) = line.pop() {
            // Remove all bytes of one UTF-8 character.
            if byte & 0xc0 != 0x80 {
                return write_echo(b"\x08 \x08", echo);
            }
        }
        Ok(())
    }

    fn write_echo(bytes: &[u8], echo: Echo) -> io::Result<()> {
        match echo {
            Echo::On => io::stderr().write_all(bytes),
            Echo::Off => Ok(()),
        }
    }

    /// Puts the terminal into raw mode (unbuffered, no echo, no signals) until it is dropped.
    struct RawTerminal(Termios);

    impl RawTerminal {
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

    impl Drop for RawTerminal {
        fn drop(&mut self) {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
        }
    }

    const CTRL_C: u8 = 0x03;
    const CTRL_D: u8 = 0x04;
    const BACKSPACE: u8 = 0x08;
    const CTRL_U: u8 = 0x15;
    const ESCAPE: u8 = 0x1b;
    const DELETE: u8 = 0x7f;
    /// Longer than any key or email address.
    const MAX_LINE_LEN: usize = 1024;
}
