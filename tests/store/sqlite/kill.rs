use std::{
    collections::HashMap,
    io::{BufRead, BufReader},
    sync::Arc,
};

use keyward::{
    Actor, ApiKeys, AuditQuery, Key, KeyId, NewKey, Secret, VerifyError, VerifyRequest,
    audit::EventKind,
    manage::{KeyChange, Page, Rotation},
    store::SqliteOptions,
    verify::DeniedReason,
};
use tokio::runtime::Runtime;

use super::{issue, process, service};
use crate::support::{
    owner,
    stores::{PATIENCE, SqliteFile},
};

/// The last acknowledged state of a key, as printed by the killed process.
#[derive(Default)]
struct Acknowledged {
    secret: String,
    revision: u64,
    revoked: bool,
}

#[test]
fn no_acknowledged_change_is_lost_in_a_thousand_changes_with_kills() {
    let file = SqliteFile::new();
    let (mut changes, mut kills) = (0, 0);
    while changes < 1_000 {
        let mut victim = process::start("kill::changes_keys_until_it_is_killed", &file.path());
        let mut lines = BufReader::new(victim.stdout.take().unwrap());
        let mut keys = HashMap::new();
        // Each kill comes after a different number of changes.
        let enough = 1 + kills * 7 % 90;
        let mut received = 0;
        while let Some(line) = next_line(&mut lines) {
            received += usize::from(acknowledge(&mut keys, &line));
            if received == enough {
                victim.kill().unwrap();
            }
        }
        assert!(!victim.wait().unwrap().success(), "it runs until it is killed");
        assert!(received >= enough);
        // A runtime of its own: no other task may be in a transaction while this thread reads.
        Runtime::new().unwrap().block_on(check_acknowledged(&file, &keys));
        changes += received;
        kills += 1;
    }
}

/// Runs in the process that is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "started and killed by the test above"]
async fn changes_keys_until_it_is_killed() {
    let keys = process::service().await;
    let tasks: Vec<_> = (0..4).map(|_| tokio::spawn(change_keys(keys.clone()))).collect();
    for task in tasks {
        task.await.unwrap();
    }
}

async fn change_keys(keys: ApiKeys) {
    let (ada, actor) = (owner("acme", "ada"), Actor::system("victim"));
    let change = KeyChange::default().name("changed").unwrap();
    for round in 0.. {
        let issued = keys.issue(NewKey::new(&ada, "new").unwrap(), &actor).await.unwrap();
        let id = issued.key.id;
        acknowledge_to_parent(&issued.key, &issued.secret);
        let changed = keys.update(&ada, id, &change, &actor).await.unwrap();
        acknowledge_to_parent(&changed, &issued.secret);
        let rotated = keys.rotate(&ada, id, Rotation::immediate(), &actor).await.unwrap();
        acknowledge_to_parent(&rotated.key, &rotated.secret);
        if round % 2 == 0 {
            keys.revoke(&ada, id, "done", &actor).await.unwrap();
            acknowledge_to_parent(&keys.get(&ada, id).await.unwrap(), &rotated.secret);
        }
    }
}

/// Prints one line with one write, so that the pipe has all of it or nothing.
fn acknowledge_to_parent(key: &Key, secret: &Secret) {
    let (id, revision, revoked) = (key.id, key.revision, key.revoked.is_some());
    println!("acknowledged {id} {revision} {revoked} {}", secret.expose());
}

fn next_line(lines: &mut impl BufRead) -> Option<String> {
    let mut line = String::new();
    (lines.read_line(&mut line).unwrap() > 0 && line.ends_with('\n')).then_some(line)
}

fn acknowledge(keys: &mut HashMap<KeyId, Acknowledged>, line: &str) -> bool {
    let words: Vec<_> = line.split_whitespace().collect();
    let ["acknowledged", id, revision, revoked, secret] = words[..] else { return false };
    let (revision, revoked) = (revision.parse().unwrap(), revoked.parse().unwrap());
    let known = keys.entry(id.parse().unwrap()).or_default();
    *known = Acknowledged { secret: secret.to_owned(), revision, revoked };
    true
}

async fn check_acknowledged(file: &SqliteFile, all: &HashMap<KeyId, Acknowledged>) {
    let keys = service(file, SqliteOptions::new().timeout(PATIENCE)).await;
    for (id, acknowledged) in all {
        let key = keys.get(&owner("acme", "ada"), *id).await.unwrap();
        assert!(
            key.revision >= acknowledged.revision,
            "acknowledged {}: {key:?}",
            acknowledged.revision
        );
        assert!(key.revoked.is_some() || !acknowledged.revoked, "{key:?}");
        match keys.verify(&acknowledged.secret, &VerifyRequest::new()).await {
            Ok(_) => assert!(!acknowledged.revoked),
            Err(VerifyError::Denied(denied)) if key.revoked.is_some() => {
                assert_eq!(denied.reason(), DeniedReason::Revoked);
            }
            // The process was killed between a rotation and its answer.
            Err(VerifyError::Denied(denied)) => {
                assert_eq!(denied.reason(), DeniedReason::SecretRetired);
                assert!(key.revision > acknowledged.revision);
            }
            Err(error) => panic!("{error}"),
        }
    }
    for key in all_keys(&keys).await {
        each_change_has_its_event(&keys, &key).await;
    }
}

/// Changes that were not acknowledged are complete or absent, too.
async fn each_change_has_its_event(keys: &ApiKeys, key: &Key) {
    let events = keys.events(AuditQuery::new(&key.owner).key(key.id)).await.unwrap();
    let count = |kind| events.iter().filter(|event| event.kind == kind).count() as u64;
    assert_eq!(count(EventKind::Created), 1);
    let changed = count(EventKind::Updated) + count(EventKind::Rotated) + count(EventKind::Revoked);
    assert_eq!(changed, key.revision, "{key:?} {events:?}");
    assert_eq!(count(EventKind::Revoked), u64::from(key.revoked.is_some()));
}

async fn all_keys(keys: &ApiKeys) -> Vec<Arc<Key>> {
    let (ada, mut all, mut page) = (owner("acme", "ada"), Vec::new(), Page::first());
    loop {
        let part = keys.list(&ada, page).await.unwrap();
        all.extend(part.keys);
        let Some(last) = part.next else { return all };
        page = Page::first().after(last);
    }
}

#[tokio::test]
async fn eight_processes_open_a_new_file_concurrently() {
    for _ in 0..10 {
        let file = SqliteFile::new();
        let all: Vec<_> =
            (0..8).map(|_| process::start("kill::opens_and_issues", &file.path())).collect();
        for child in all {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        }
        let keys = service(&file, SqliteOptions::new()).await;
        assert_eq!(all_keys(&keys).await.len(), 8);
    }
}

#[tokio::test]
#[ignore = "started by the test above"]
async fn opens_and_issues() {
    let _issued = issue(&process::service().await).await;
}
