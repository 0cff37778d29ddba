//! The storage of the example servers. Each test runs with every backend.

use std::fs;

use tempfile::TempDir;

use crate::support::{
    servers::{
        postgres::Database,
        redis::{self, Space},
    },
    stores,
};

pub struct Backend {
    database: String,
    storage: Storage,
    rates: Option<Space>,
}

enum Storage {
    File(TempDir),
    Tables(Database),
}

impl Backend {
    pub async fn sqlite() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("keys.db").to_str().unwrap().to_owned();
        Some(Self { database, storage: Storage::File(folder), rates: None })
    }

    pub async fn postgres() -> Option<Self> {
        let database = stores::postgres().await?;
        let url = database.url().to_owned();
        Some(Self { database: url, storage: Storage::Tables(database), rates: None })
    }

    /// PostgreSQL, with rate limits in Redis.
    pub async fn postgres_and_redis() -> Option<Self> {
        let space = redis::shared()?.space();
        Some(Self { rates: Some(space), ..Self::postgres().await? })
    }

    pub fn database(&self) -> &str {
        &self.database
    }

    pub fn rates(&self) -> Option<&Space> {
        self.rates.as_ref()
    }

    /// Returns whether the stored data contains these bytes, as they are or in hexadecimal.
    pub fn contains(&self, part: &[u8]) -> bool {
        let (stored, hex) = match &self.storage {
            Storage::File(folder) => {
                let files = fs::read_dir(folder.path()).unwrap();
                let read = |file: std::io::Result<fs::DirEntry>| fs::read(file.unwrap().path());
                (files.flat_map(|file| read(file).unwrap()).collect(), None)
            }
            Storage::Tables(database) => {
                let all = "SET xmlbinary = hex; SELECT database_to_xml(true, false, '')";
                let digits = part.iter().map(|byte| format!("{byte:02X}")).collect::<String>();
                (database.sql(all).unwrap().into_bytes(), Some(digits))
            }
        };
        let has = |part: &[u8]| stored.windows(part.len()).any(|window| window == part);
        has(part) || hex.is_some_and(|digits| has(digits.as_bytes()))
    }
}

/// Runs each test with each backend. A backend that is not installed is reported and skipped.
macro_rules! on_each_backend {
    ([$($backend:ident),+] $tests:tt) => {
        $(on_each_backend!(@ async $backend $tests);)+
    };
    (blocking [$($backend:ident),+] $tests:tt) => {
        $(on_each_backend!(@ blocking $backend $tests);)+
    };
    (@ $kind:ident $backend:ident { $($test:ident,)+ }) => {
        mod $backend {
            use crate::products::backend::{Backend, on_each_backend};
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    let Some(backend) = Backend::$backend().await else { return };
                    on_each_backend!(@ run $kind super::$test(&backend));
                }
            )+
        }
    };
    (@ run async $test:expr) => { $test.await };
    (@ run blocking $test:expr) => { tokio::task::block_in_place(|| $test) };
}

pub(super) use on_each_backend;
