//! Where the keys of a product's servers are: each test of a server runs in all these places.

use std::fs;

use tempfile::TempDir;

use crate::support::{
    servers::{
        postgres::Database,
        redis::{self, Space},
    },
    stores,
};

pub struct Place {
    database: String,
    kept: Kept,
    rates: Option<Space>,
}

enum Kept {
    File(TempDir),
    Tables(Database),
}

impl Place {
    pub async fn sqlite() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("keys.db").to_str().unwrap().to_owned();
        Some(Self { database, kept: Kept::File(folder), rates: None })
    }

    pub async fn postgres() -> Option<Self> {
        let database = stores::postgres().await?;
        let url = database.url().to_owned();
        Some(Self { database: url, kept: Kept::Tables(database), rates: None })
    }

    /// Rates are counted in Redis.
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

    /// Whether these bytes stand anywhere in what is stored, as they are or as text.
    pub fn holds(&self, part: &[u8]) -> bool {
        let (stored, hexadecimal) = match &self.kept {
            Kept::File(folder) => {
                let files = fs::read_dir(folder.path()).unwrap();
                let read = |file: std::io::Result<fs::DirEntry>| fs::read(file.unwrap().path());
                (files.flat_map(|file| read(file).unwrap()).collect(), None)
            }
            Kept::Tables(database) => {
                let all = "SET xmlbinary = hex; SELECT database_to_xml(true, false, '')";
                let digits = part.iter().map(|byte| format!("{byte:02X}")).collect::<String>();
                (database.sql(all).unwrap().into_bytes(), Some(digits))
            }
        };
        let finds = |part: &[u8]| stored.windows(part.len()).any(|window| window == part);
        finds(part) || hexadecimal.is_some_and(|digits| finds(digits.as_bytes()))
    }
}

/// Runs each of these tests in each of these places; what is not installed there is said.
macro_rules! in_each_place {
    ([$($place:ident),+] $tests:tt) => {
        $(in_each_place!(@ async $place $tests);)+
    };
    (blocking [$($place:ident),+] $tests:tt) => {
        $(in_each_place!(@ blocking $place $tests);)+
    };
    (@ $kind:ident $place:ident { $($test:ident,)+ }) => {
        mod $place {
            use crate::products::place::{Place, in_each_place};
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    let Some(place) = Place::$place().await else { return };
                    in_each_place!(@ run $kind super::$test(&place));
                }
            )+
        }
    };
    (@ run async $test:expr) => { $test.await };
    (@ run blocking $test:expr) => { tokio::task::block_in_place(|| $test) };
}

pub(super) use in_each_place;
