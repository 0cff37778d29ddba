//! Starts other processes: this test binary, running one ignored test.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use keyward::{ApiKeys, store::SqliteOptions};

use super::keys_on;
use crate::support::stores::PATIENCE;

/// Starts a test of this folder in a new process, on a file.
pub fn start(test: &str, file: &Path) -> Child {
    let command = Command::new(env::current_exe().unwrap());
    spawn(command, test, file)
}

/// Like `start`, with a process that has to respect the permissions of files, even if it is root's.
pub fn start_unprivileged(test: &str, file: &Path) -> Child {
    if !rustix::process::getuid().is_root() {
        return start(test, file);
    }
    let mut command = Command::new("setpriv");
    command.arg("--bounding-set=-dac_override,-dac_read_search").arg(env::current_exe().unwrap());
    spawn(command, test, file)
}

fn spawn(mut command: Command, test: &str, file: &Path) -> Child {
    command
        .args(["--exact", &format!("store::sqlite::{test}"), "--ignored", "--nocapture", "--quiet"])
        .env(FILE, file)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Returns the file, in such a process.
pub fn file() -> PathBuf {
    env::var_os(FILE).expect("this test is started by another one").into()
}

/// Opens a service on the file, in such a process.
pub async fn service() -> ApiKeys {
    keys_on(SqliteOptions::new().timeout(PATIENCE).open(file()).await.unwrap())
}

const FILE: &str = "KEYWARD_TEST_FILE";
