//! Starts other processes: this test binary, running one ignored test.

use std::{
    env,
    path::Path,
    process::{Child, Command, Stdio},
};

use keyward::{ApiKeys, store::SqliteOptions};

use super::keys_on;
use crate::support::stores::PATIENCE;

/// Starts a test of this folder in a new process, on a file.
pub fn start(test: &str, file: &Path) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", &format!("store::sqlite::{test}"), "--ignored", "--nocapture", "--quiet"])
        .env(FILE, file)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Opens a service on the file, in such a process.
pub async fn service() -> ApiKeys {
    let file = env::var_os(FILE).expect("this test is started by another one");
    keys_on(SqliteOptions::new().timeout(PATIENCE).open(file).await.unwrap())
}

const FILE: &str = "KEYWARD_TEST_FILE";
