//! A mail server that stores the mails it receives: aiosmtpd, a Debian package.

use std::{
    fs,
    net::{Ipv4Addr, TcpStream},
    path::Path,
    process::{Command, Stdio},
};

use serde::Deserialize;

use super::{Scratch, User, process::Process, program, skip};

/// A running server that belongs to one test.
pub struct Server(Process);

/// A received mail.
#[derive(Clone, Debug, Deserialize)]
pub struct Mail {
    pub from: String,
    /// The recipients of the envelope.
    pub to: Vec<String>,
    /// Decoded, in their original order.
    pub headers: Vec<(String, String)>,
    pub text: Option<String>,
    pub html: Option<String>,
}

/// Starts a server, or returns `None` after reporting that the test is skipped.
pub fn start() -> Option<Server> {
    // Debian's Python finds Debian's packages; another Python on the `PATH` may not.
    let folders = [vec!["/usr/bin".into()], vec![]];
    let mut pythons = folders.iter().filter_map(|folders| program(&["python3"], folders));
    let Some(python) = pythons.find(|python| has_aiosmtpd(python)) else {
        skip("aiosmtpd", INSTALL);
        return None;
    };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/support/servers/smtpd.py").to_owned();
    let scratch = Scratch::new(User::current());
    let folder = scratch.path().to_owned();
    let process = Process::start(scratch, &python, vec![script], |_| is_ready(&folder));
    Some(Server(process.unwrap_or_else(|log| panic!("the mail server does not start:\n{log}"))))
}

impl Server {
    pub fn url(&self) -> String {
        format!("smtp://127.0.0.1:{}", port(self.0.folder()).unwrap())
    }

    /// Returns all mails received so far, in order.
    pub fn mails(&self) -> Vec<Mail> {
        let lines = fs::read_to_string(self.0.folder().join("mails")).unwrap_or_default();
        // Ignores a mail that is being written.
        let complete = lines.rfind('\n').map_or("", |end| &lines[..end]);
        complete.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub fn kill(&mut self) {
        self.0.kill();
    }

    pub fn restart(&mut self) {
        let folder = self.0.folder().to_owned();
        self.0.restart(|_| is_ready(&folder));
    }

    /// Sends `SIGSTOP`: connections are accepted, but get no response.
    pub fn freeze(&self) {
        self.0.freeze();
    }

    pub fn thaw(&self) {
        self.0.thaw();
    }
}

impl Mail {
    /// Returns the only header with this name.
    pub fn header(&self, name: &str) -> &str {
        let mut named = self.headers.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
        let (Some((_, value)), None) = (named.next(), named.next()) else {
            panic!("expected one header {name}")
        };
        value
    }
}

fn has_aiosmtpd(python: &Path) -> bool {
    let look = Command::new(python).args(["-c", "import aiosmtpd"]).stderr(Stdio::null()).status();
    look.is_ok_and(|status| status.success())
}

fn is_ready(folder: &Path) -> bool {
    port(folder).is_some_and(|port| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok())
}

fn port(folder: &Path) -> Option<u16> {
    fs::read_to_string(folder.join("port")).ok()?.parse().ok()
}

const INSTALL: &str =
    "apt-get update && apt-get install -y --no-install-recommends python3-aiosmtpd";
