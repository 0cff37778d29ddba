//! The stores that a cluster runs on: a file, or a server of its own that is reached through a proxy per node.

use super::{node::Address, run::NODES};
use crate::support::{
    servers::{
        Proxy,
        postgres::{self, Database},
        redis,
    },
    stores::SqliteFile,
};

pub enum Store {
    Sqlite(SqliteFile),
    Postgres { server: postgres::Server, database: Database, proxies: Vec<Proxy> },
    Redis { server: redis::Server, proxies: Vec<Proxy> },
}

impl Store {
    pub fn sqlite() -> Self {
        Self::Sqlite(SqliteFile::new())
    }

    /// Returns `None` after reporting that PostgreSQL is not installed.
    pub fn postgres() -> Option<Self> {
        let server = postgres::Options::default().start()?;
        let database = server.cluster().database();
        let proxies = (0..NODES).map(|_| server.proxy()).collect();
        Some(Self::Postgres { server, database, proxies })
    }

    /// Returns `None` after reporting that Redis is not installed.
    pub fn redis() -> Option<Self> {
        let server = redis::Options::default().durable().start()?;
        let proxies = (0..NODES).map(|_| server.proxy()).collect();
        Some(Self::Redis { server, proxies })
    }

    pub fn has_server(&self) -> bool {
        !matches!(self, Self::Sqlite(_))
    }

    pub fn address(&self) -> Address {
        match self {
            Self::Sqlite(file) => Address::Sqlite(file.path()),
            Self::Postgres { database, .. } => Address::Postgres(database.url().to_owned()),
            Self::Redis { server, .. } => Address::Redis(server.url()),
        }
    }

    /// The address for one of the nodes.
    pub fn address_of(&self, index: usize) -> Address {
        match self {
            Self::Sqlite(_) => self.address(),
            Self::Postgres { server, database, proxies } => {
                Address::Postgres(server.url_through(&proxies[index], database))
            }
            Self::Redis { proxies, .. } => Address::Redis(redis::url(proxies[index].address())),
        }
    }

    pub fn proxy(&self, index: usize) -> &Proxy {
        match self {
            Self::Sqlite(_) => unreachable!("a file has no connections"),
            Self::Postgres { proxies, .. } | Self::Redis { proxies, .. } => &proxies[index],
        }
    }

    pub fn kill(&mut self) {
        match self {
            Self::Sqlite(_) => unreachable!("a file has no server"),
            Self::Postgres { server, .. } => server.kill(),
            Self::Redis { server, .. } => server.kill(),
        }
    }

    pub fn restart(&mut self) {
        match self {
            Self::Sqlite(_) => unreachable!("a file has no server"),
            Self::Postgres { server, .. } => server.restart(),
            Self::Redis { server, .. } => server.restart(),
        }
    }

    pub fn freeze(&self) {
        match self {
            Self::Sqlite(_) => unreachable!("a file has no server"),
            Self::Postgres { server, .. } => server.freeze(),
            Self::Redis { server, .. } => server.freeze(),
        }
    }

    pub fn thaw(&self) {
        match self {
            Self::Sqlite(_) => unreachable!("a file has no server"),
            Self::Postgres { server, .. } => server.thaw(),
            Self::Redis { server, .. } => server.thaw(),
        }
    }
}
