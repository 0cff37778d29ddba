//! `KvStore` over an engine whose transactions conflict, and over redb.

use std::{
    collections::BTreeMap,
    env,
    io::{BufRead, BufReader},
    ops::{Bound, Range},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, RwLock},
};

use async_trait::async_trait;
use keyward::{
    Actor, ApiKeys, KeyStore, NewKey, OwnerScope, VerifyRequest,
    manage::Page,
    store::{
        ChangeFeed, KvEngine, KvError, KvMode, KvOrder, KvPair, KvStore, KvTransaction, RedbEngine,
        StoreError, StoreErrorKind, conformance::Suite,
    },
    verify::DeniedReason,
};
use tempfile::TempDir;
use tokio::{runtime::Runtime, task::yield_now};

use crate::support::{Service, format, owner, reason};

/// A B-tree in memory. A transaction conflicts with every other one that was committed since it began.
#[derive(Clone, Default)]
struct BTreeEngine(Arc<RwLock<Committed>>);

#[derive(Default)]
struct Committed {
    commits: u64,
    pairs: BTreeMap<Vec<u8>, Vec<u8>>,
}

struct BTreeTransaction {
    engine: BTreeEngine,
    began_after: u64,
    writes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl BTreeTransaction {
    /// Yields first, so that another transaction can come in between.
    async fn read<T>(&self, read: impl FnOnce(&Committed) -> T) -> Result<T, KvError> {
        yield_now().await;
        let committed = self.engine.0.read().unwrap();
        let is_current = committed.commits == self.began_after;
        if is_current { Ok(read(&committed)) } else { Err(KvError::Conflict) }
    }
}

#[async_trait]
impl KvEngine for BTreeEngine {
    async fn begin(&self, _: KvMode) -> Result<Box<dyn KvTransaction>, StoreError> {
        let began_after = self.0.read().unwrap().commits;
        Ok(Box::new(BTreeTransaction { engine: self.clone(), began_after, writes: Vec::new() }))
    }
}

#[async_trait]
impl KvTransaction for BTreeTransaction {
    async fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        self.read(|committed| committed.pairs.get(key).cloned()).await
    }

    async fn scan(
        &mut self,
        range: Range<&[u8]>,
        order: KvOrder,
        limit: usize,
    ) -> Result<Vec<KvPair>, KvError> {
        let bounds = (Bound::Included(range.start), Bound::Excluded(range.end));
        self.read(|committed| {
            let pairs = committed.pairs.range::<[u8], _>(bounds);
            let pairs = pairs.map(|(key, value)| (key.clone(), value.clone()));
            match order {
                KvOrder::Ascending => pairs.take(limit).collect(),
                KvOrder::Descending => pairs.rev().take(limit).collect(),
            }
        })
        .await
    }

    fn write(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.writes.push((key, value));
    }

    async fn commit(self: Box<Self>) -> Result<(), KvError> {
        let mut committed = self.engine.0.write().unwrap();
        if committed.commits != self.began_after {
            return Err(KvError::Conflict);
        }
        committed.commits += u64::from(!self.writes.is_empty());
        for (key, value) in self.writes {
            match value {
                Some(value) => drop(committed.pairs.insert(key, value)),
                None => drop(committed.pairs.remove(&key)),
            }
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_store_over_an_engine_with_conflicts_conforms() {
    // Two stores over one engine, as two processes have them.
    let open = async |engine: &mut BTreeEngine| {
        let store = || Arc::new(KvStore::new(engine.clone())) as Arc<dyn KeyStore>;
        vec![store(), store()]
    };
    Suite::new().run_reopening(async || BTreeEngine::default(), open).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn redb_conforms() {
    let open = async |folder: &mut TempDir| {
        let store = KvStore::new(RedbEngine::open(folder.path().join("keys.redb")).await.unwrap());
        vec![Arc::new(store.clone()) as Arc<dyn KeyStore>, Arc::new(store)]
    };
    Suite::new().run_reopening(async || tempfile::tempdir().unwrap(), open).await;
}

#[tokio::test]
async fn a_damaged_or_missing_entry_is_corrupt() {
    let engine = BTreeEngine::default();
    let store = KvStore::new(engine.clone());
    let service = Service::uncached(vec![Arc::new(store.clone())]);
    let issued = service.issue().await;
    let intact = engine.0.read().unwrap().pairs.clone();
    let has_kind = |kind| intact.keys().any(|key| key[0] == kind);
    assert!([b'k', b'd', b'o', b'e', b'f', b'm'].into_iter().all(has_kind));
    for kind in [b'k', b'e', b'f', b'm', b'o'] {
        let mut damaged = intact.clone();
        for (_, value) in damaged.iter_mut().filter(|(key, _)| key[0] == kind) {
            value.pop();
        }
        engine.0.write().unwrap().pairs = damaged;
        let id = issued.key.id;
        let within = OwnerScope::Owner(&service.owner);
        let query = keyward::AuditQuery::new(within);
        let error = match kind {
            b'k' => store.get(within, id).await.unwrap_err(),
            b'e' => store.events(&query).await.unwrap_err(),
            b'm' => store.changes(None).await.unwrap_err(),
            b'f' => store.changes(Some(0)).await.unwrap_err(),
            _ => store.announce_account_change(&service.owner, service.now()).await.unwrap_err(),
        };
        assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{}", kind as char);
    }
    // A digest that leads to no key must not be read as an unknown secret.
    let mut damaged = intact.clone();
    damaged.retain(|key, _| key[0] != b'k');
    engine.0.write().unwrap().pairs = damaged;
    let verified = service.keys().verify(issued.secret.expose(), &VerifyRequest::new()).await;
    assert!(matches!(verified, Err(keyward::VerifyError::Unavailable(_))), "{verified:?}");
}

#[tokio::test]
async fn a_damaged_key_spoils_no_other_key() {
    let engine = BTreeEngine::default();
    let service = Service::uncached(vec![Arc::new(KvStore::new(engine.clone()))]);
    let (damaged, intact) = (service.issue().await.key.id, service.issue().await.key.id);
    let of_damaged = |key: &[u8]| key[0] == b'k' && key.ends_with(damaged.as_bytes());
    let record = |pairs: &mut BTreeMap<Vec<u8>, Vec<u8>>| {
        let mut records = pairs.iter_mut().filter(|(key, _)| of_damaged(key));
        records.next().map(|(_, value)| _ = value.pop())
    };
    record(&mut engine.0.write().unwrap().pairs).expect("the key has a record");
    let page = service.keys().list(&service.owner, Page::first()).await.unwrap();
    assert_eq!(page.keys.iter().map(|key| key.id).collect::<Vec<_>>(), [intact]);
    assert_eq!(page.damaged, [damaged]);
    let revoked = service.keys().revoke_all(&service.owner, "incident", &service.actor).await;
    assert_eq!(revoked.unwrap(), [intact]);
}

#[tokio::test]
async fn a_file_of_redb_is_open_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.redb");
    let first = RedbEngine::open(&path).await.unwrap();
    let second = RedbEngine::open(&path).await.unwrap_err();
    assert_eq!(second.kind(), StoreErrorKind::Unavailable);
    drop(first);
    RedbEngine::open(&path).await.unwrap();
}

#[test]
fn redb_keeps_what_was_acknowledged_when_the_process_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.redb");
    let mut all = BTreeMap::new();
    for enough in [1, 2, 9, 30] {
        let mut victim = start_victim(&path);
        let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines();
        let mut received = 0;
        while let Some(Ok(line)) = lines.next() {
            // The harness prints lines of its own.
            let Some(acknowledged) = line.strip_prefix("acknowledged ") else { continue };
            let (what, secret) = acknowledged.split_once(' ').unwrap();
            all.insert(secret.to_owned(), what == "revoked");
            received += 1;
            if received == enough {
                victim.kill().unwrap();
            }
        }
        assert!(!victim.wait().unwrap().success(), "it runs until it is killed");
        assert!(received >= enough);
        Runtime::new().unwrap().block_on(async {
            let keys = keys_in(&path).await;
            let (mut working, mut revoked) = (0, 0);
            for (secret, is_revoked) in &all {
                let verified = keys.verify(secret, &VerifyRequest::new()).await.map_err(reason);
                match verified {
                    Ok(_) => assert!(!is_revoked, "a revocation was lost"),
                    // The revocation after the last line may have been made.
                    Err(error) => assert_eq!(error, DeniedReason::Revoked),
                }
                *if verified.is_ok() { &mut working } else { &mut revoked } += 1;
            }
            let acknowledged = all.values().filter(|is_revoked| **is_revoked).count();
            assert!(revoked <= acknowledged + 4, "{working} {revoked} {acknowledged}");
        });
    }
}

/// Runs in the process that is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started and killed by the test above"]
async fn changes_keys_until_it_is_killed() {
    let keys = keys_in(Path::new(&env::var_os(FILE).unwrap())).await;
    let (ada, actor) = (owner("acme", "ada"), Actor::system("victim"));
    loop {
        let issued = keys.issue(NewKey::new(&ada, "new").unwrap(), &actor).await.unwrap();
        println!("acknowledged issued {}", issued.secret.expose());
        keys.revoke(&ada, issued.key.id, "done", &actor).await.unwrap();
        println!("acknowledged revoked {}", issued.secret.expose());
    }
}

fn start_victim(file: &Path) -> Child {
    let test = "store::kv::changes_keys_until_it_is_killed";
    Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture", "--quiet"])
        .env(FILE, file)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

async fn keys_in(file: &Path) -> ApiKeys {
    let store = KvStore::new(RedbEngine::open(file).await.unwrap());
    ApiKeys::builder(store, format()).no_cache().build()
}

const FILE: &str = "KEYWARD_TEST_FILE";
