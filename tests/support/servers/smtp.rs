//! A mail server that keeps what it is sent: aiosmtpd, a Debian package.

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

/// A mail as the server got it.
#[derive(Clone, Debug, Deserialize)]
pub struct Mail {
    pub from: String,
    /// Of the envelope: who really gets it.
    pub to: Vec<String>,
    /// Decoded, in their order.
    pub headers: Vec<(String, String)>,
    pub text: Option<String>,
    pub html: Option<String>,
}

/// Starts one, or gives `None` after saying that the test is skipped.
pub fn start() -> Option<Server> {
    // Debian's own knows what Debian installs, whatever else is on the `PATH`.
    let folders = [vec!["/usr/bin".into()], vec![]];
    let mut pythons = folders.iter().filter_map(|folders| program(&["python3"], folders));
    let Some(python) = pythons.find(|python| has_aiosmtpd(python)) else {
        skip("aiosmtpd", INSTALL);
        return None;
    };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/servers/smtpd.py").to_owned();
    let scratch = Scratch::new(User::current());
    let folder = scratch.path().to_owned();
    let process = Process::start(scratch, &python, vec![script], |_| is_ready(&folder));
    Some(Server(process.unwrap_or_else(|log| panic!("the mail server does not start:\n{log}"))))
}

impl Server {
    pub fn url(&self) -> String {
        format!("smtp://127.0.0.1:{}", port(self.0.folder()).unwrap())
    }

    /// All mails so far, in the order in which they came.
    pub fn mails(&self) -> Vec<Mail> {
        let lines = fs::read_to_string(self.0.folder().join("mails")).unwrap_or_default();
        // One that is just being written is not there yet.
        let whole = lines.rfind('\n').map_or("", |end| &lines[..end]);
        whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub fn kill(&mut self) {
        self.0.kill();
    }

    pub fn restart(&mut self) {
        let folder = self.0.folder().to_owned();
        self.0.restart(|_| is_ready(&folder));
    }

    /// `SIGSTOP`: connections are made, and nobody speaks.
    pub fn freeze(&self) {
        self.0.freeze();
    }

    pub fn thaw(&self) {
        self.0.thaw();
    }
}

impl Mail {
    /// The one header of this name.
    pub fn header(&self, name: &str) -> &str {
        let mut named = self.headers.iter().filter(|(its, _)| its.eq_ignore_ascii_case(name));
        let (Some((_, value)), None) = (named.next(), named.next()) else {
            panic!("not one {name}")
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
