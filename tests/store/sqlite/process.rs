//! Other processes: this test binary again, running one test that is ignored otherwise.

use std::{
    env,
    path::Path,
    process::{Child, Command, Stdio},
};

use keyward::{ApiKeys, store::SqliteOptions};

use super::keys_on;
use crate::support::stores::PATIENCE;

/// Starts a test of this folder in a process of its own, on a file.
pub fn start(test: &str, file: &Path) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", &format!("store::sqlite::{test}"), "--ignored", "--nocapture", "--quiet"])
        .env(FILE, file)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// In such a process: a service on the file.
pub async fn service() -> ApiKeys {
    let file = env::var_os(FILE).expect("only another test starts this one");
    keys_on(SqliteOptions::new().timeout(PATIENCE).open(file).await.unwrap())
}

const FILE: &str = "KEYWARD_TEST_FILE";
