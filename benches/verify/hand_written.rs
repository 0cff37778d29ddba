//! What a service would write without this crate: a map from digests to records. It checks the same as the cached
//! keys of the benchmark (expiry, a scope, a rate) and records the last use, but nothing keeps it up to date.

use std::{
    collections::HashMap,
    hint::black_box,
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use sha2::Digest;

pub struct HandWritten(RwLock<HashMap<[u8; 32], Arc<Record>>>);

struct Record {
    revoked: bool,
    expires_at: SystemTime,
    scopes: Vec<String>,
    last_used: AtomicU64,
    /// A token bucket: the tokens that were left at an instant.
    bucket: Mutex<(f64, Instant)>,
}

impl HandWritten {
    pub fn of<'a>(secrets: impl Iterator<Item = &'a str>) -> Self {
        let record = |secret: &str| (sha2::Sha256::digest(secret).into(), Arc::new(Record::new()));
        Self(RwLock::new(secrets.map(record).collect()))
    }

    pub fn verify(&self, secret: &str, scope: &str) -> bool {
        let digest: [u8; 32] = sha2::Sha256::digest(secret).into();
        let Some(record) = self.0.read().unwrap().get(&digest).cloned() else { return false };
        let now = SystemTime::now();
        if record.revoked || record.expires_at <= now || !record.scopes.iter().any(|s| s == scope) {
            return false;
        }
        let mut bucket = record.bucket.lock().unwrap();
        let (tokens, at) = *bucket;
        let tokens = (tokens + at.elapsed().as_secs_f64() * PER_SECOND).min(BURST);
        *bucket = (tokens - 1.0, Instant::now());
        drop(bucket);
        let since_1970 = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        record.last_used.store(since_1970.as_micros() as u64, Ordering::Relaxed);
        black_box(record);
        tokens >= 1.0
    }
}

impl Record {
    fn new() -> Self {
        Self {
            revoked: false,
            expires_at: SystemTime::now() + Duration::from_secs(365 * 24 * 60 * 60),
            scopes: vec!["builds:read".into()],
            last_used: AtomicU64::new(0),
            bucket: Mutex::new((BURST, Instant::now())),
        }
    }
}

const PER_SECOND: f64 = 10.0;
/// More than any benchmark uses.
const BURST: f64 = 1e12;
