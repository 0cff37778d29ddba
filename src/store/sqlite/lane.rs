use std::{
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex},
};

use sqlx::{ConnectOptions, Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
};

use super::errors::Failure;
use crate::system::lock;

/// A few connections, lent to one task at a time and in the order of asking.
///
/// sqlx's own pool takes a connection back in a task that it spawns for it, after a ping, and hands
/// it on as it is; `cargo bench --bench stores` shows what that costs a look-up. Here a connection
/// goes back at once, and one that may be in the middle of something is closed instead.
pub(super) struct Lane {
    options: SqliteConnectOptions,
    turns: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<SqliteConnection>>>,
}

impl Lane {
    pub(super) fn new(options: SqliteConnectOptions, connections: usize) -> Self {
        let turns = Arc::new(Semaphore::new(connections));
        Self { options, turns, idle: Arc::default() }
    }

    /// Waits for a connection to be free, or opens one.
    pub(super) async fn lease(&self) -> Result<Lease, Failure> {
        let turn = self.turns.clone().acquire_owned().await;
        let turn = turn.expect("nothing closes the semaphore");
        let idle = lock(&self.idle).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.options.connect().await?,
        };
        let idle = self.idle.clone();
        Ok(Lease { connection: Some(connection), idle, turn: Some(turn), clean: true })
    }
}

/// A connection that goes back when this is dropped, unless it is spoiled.
pub(super) struct Lease {
    /// There until the drop.
    connection: Option<SqliteConnection>,
    idle: Arc<Mutex<Vec<SqliteConnection>>>,
    turn: Option<OwnedSemaphorePermit>,
    clean: bool,
}

impl Lease {
    /// From now on the connection may hold what must not outlive this lease.
    pub(super) fn spoil(&mut self) {
        self.clean = false;
    }

    /// It holds nothing any more.
    pub(super) fn clear(&mut self) {
        self.clean = true;
    }
}

/// Closing rolls back, whatever the connection was doing. The turn passes on after that, so that
/// the next task finds no lock of this one, and however many tasks give up, only so many
/// connections are open.
impl Drop for Lease {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        if self.clean {
            lock(&self.idle).push(connection);
        } else if let Ok(runtime) = Handle::try_current() {
            let turn = self.turn.take();
            runtime.spawn(async move {
                // Nobody is left to be told.
                let _ = connection.close().await;
                drop(turn);
            });
        }
    }
}

impl Deref for Lease {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        self.connection.as_ref().expect(UNTIL_DROP)
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        self.connection.as_mut().expect(UNTIL_DROP)
    }
}

const UNTIL_DROP: &str = "only the drop takes the connection";
