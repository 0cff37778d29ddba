//! The store of the manual's page *writing a store*.

use std::{fs, sync::Arc};

use keyward::{
    KeyStore,
    store::{Capability, StoreErrorKind, conformance::Suite},
};
use tempfile::TempDir;

use super::json_store::JsonStore;
use crate::support::Service;

fn open(folder: &TempDir) -> JsonStore {
    JsonStore::open(folder.path().into()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_worked_example_conforms() {
    let core = Capability::ALL.into_iter().fold(Suite::new(), Suite::without);
    let create = async || tempfile::tempdir().unwrap();
    let open = async |folder: &mut TempDir| {
        let store = Arc::new(open(folder));
        vec![store.clone() as Arc<dyn KeyStore>, store]
    };
    // Every change writes the whole file, so a race of many rounds is slow.
    core.rounds(2).run_reopening(create, open).await;
}

#[tokio::test]
async fn the_worked_example_serves() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::new(vec![Arc::new(open(&folder))]);
    let issued = service.issue().await;
    service.verify(&issued).await.unwrap();
    service.keys().shutdown().await.unwrap();
    let service = Service::new(vec![Arc::new(open(&folder))]);
    service.verify(&issued).await.unwrap();
}

#[tokio::test]
async fn a_damaged_file_is_corrupt_and_an_unfinished_one_is_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::new(vec![Arc::new(open(&folder))]);
    let issued = service.issue().await;
    let file = folder.path().join("keys.json");
    let json = fs::read(&file).unwrap();
    // A process that was killed while it wrote leaves the beginning of the next file.
    fs::write(folder.path().join("keys.new"), &json[..json.len() / 2]).unwrap();
    let read = open(&folder).get((&service.owner).into(), issued.key.id).await.unwrap();
    assert_eq!(read.unwrap().id, issued.key.id);
    fs::write(&file, &json[..json.len() - 1]).unwrap();
    let error = JsonStore::open(folder.path().into()).map(drop).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Corrupt);
}

#[test]
fn the_worked_example_has_fewer_than_300_lines() {
    let is_code = |line: &&str| !line.is_empty() && !line.trim_start().starts_with("//");
    let lines = include_str!("../../src/manual/json_store.rs").lines().filter(is_code).count();
    assert!(lines < 300, "{lines} lines of code");
}
