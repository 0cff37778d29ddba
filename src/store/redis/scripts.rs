use std::sync::LazyLock;

use redis::{ServerErrorKind, ToRedisArgs};
use tokio::time::Instant;

use super::{
    connection::{CommandOutcome, Connection},
    errors::has_kind,
};

/// A script, and the hash by which the server caches it. The server runs it atomically, also when its
/// caller is gone.
pub(crate) struct Script {
    hash: String,
    text: String,
}

/// `write` runs only if the server accepts writes and has free memory. `end` also runs when the
/// memory is full, because revocations and purges must not wait for memory. `read` writes nothing.
/// `bare` is `read` without the prelude.
macro_rules! scripts {
    ($($name:ident: $kind:ident $file:literal,)*) => {
        $(pub(super) static $name: LazyLock<Script> =
            LazyLock::new(|| Script::$kind(include_str!(concat!("scripts/", $file))));)*
    };
}

scripts! {
    LAYOUT: end "layout.lua",
    INSERT: write "insert.lua",
    UPDATE: write "update.lua",
    ROTATE: write "rotate.lua",
    REHASH: write "rehash.lua",
    RECORD_USES: write "record_uses.lua",
    RECORD_EVENTS: write "record_events.lua",
    ADD_USAGE: write "add_usage.lua",
    CHARGE: write "charge.lua",
    REFUND: write "refund.lua",
    PUT_CODE: write "put_code.lua",
    TRY_CODE: write "try_code.lua",
    REVOKE: end "revoke.lua",
    REVOKE_ALL: end "revoke_all.lua",
    ANNOUNCE_ACCOUNT_CHANGE: end "announce_account_change.lua",
    DELETE: end "delete.lua",
    PURGE_KEYS: end "purge_keys.lua",
    PURGE_EVENTS: end "purge_events.lua",
    PURGE_CHANGES: end "purge_changes.lua",
    PURGE_USAGE: end "purge_usage.lua",
    PURGE_CODES: end "purge_codes.lua",
    PURGE_COUNTERS: end "purge_counters.lua",
    GET: bare "get.lua",
    TIME: bare "time.lua",
    LIST_KEYS: read "list_keys.lua",
    LIST_DEAD_KEYS: read "list_dead_keys.lua",
    LIST_EVENTS: read "list_events.lua",
    LIST_OLD_EVENTS: read "list_old_events.lua",
    LIST_TENANTS: read "list_tenants.lua",
    CHANGES: read "changes.lua",
    USAGE_HISTORY: read "usage_history.lua",
}

impl Script {
    fn write(body: &str) -> Self {
        Self::new(&format!("#!lua\n{PRELUDE}{body}"))
    }

    fn end(body: &str) -> Self {
        Self::new(&format!("#!lua flags=allow-oom\n{PRELUDE}{body}"))
    }

    fn read(body: &str) -> Self {
        Self::new(&format!("#!lua flags=no-writes\n{PRELUDE}{body}"))
    }

    fn bare(body: &str) -> Self {
        Self::new(&format!("#!lua flags=no-writes\n{body}"))
    }

    pub(crate) fn new(text: &str) -> Self {
        Self { hash: redis::Script::new(text).get_hash().into(), text: text.into() }
    }

    /// Runs the script on a server, and sends its text if the server does not have it cached.
    pub(crate) async fn run(
        &self,
        connection: &Connection,
        keys: &[String],
        arguments: &[impl ToRedisArgs],
        deadline: Instant,
    ) -> CommandOutcome {
        let command = |name, script: &String| {
            let mut command = redis::cmd(name);
            command.arg(script).arg(keys.len()).arg(keys).arg(arguments);
            command
        };
        match connection.send(&command("EVALSHA", &self.hash), deadline).await {
            CommandOutcome::Rejected(error) if has_kind(&error, ServerErrorKind::NoScript) => {
                connection.send(&command("EVAL", &self.text), deadline).await
            }
            outcome => outcome,
        }
    }
}

const PRELUDE: &str = include_str!("scripts/prelude.lua");

/// The names of a store's Redis keys. All have the same hash tag, so that a cluster keeps them on one
/// node. No user input is part of a name.
#[derive(Debug)]
pub(super) struct RedisKeys(pub(super) [String; 11]);

impl RedisKeys {
    pub(super) fn new(prefix: &str) -> Self {
        Self(SUFFIXES.map(|suffix| format!("{{{prefix}}}{suffix}")))
    }

    /// Returns the hash from digests to keys.
    pub(super) fn secrets(&self) -> &str {
        &self.0[1]
    }

    /// Returns the stream of changes, which is also the channel on which they are announced.
    pub(super) fn changes(&self) -> &str {
        &self.0[5]
    }

    /// Returns the hash of the store's layout and the positions of the change feed.
    pub(super) fn meta(&self) -> &str {
        &self.0[6]
    }
}

/// In the order of `KEYS` in `prelude.lua`. The audit log is the stream `audit`, in the order of
/// arrival. Events are listed in the order of their ids: the sorted set `audit_index` has the ids, and
/// the hash `audit_entries` leads from an id to the entry of the stream.
const SUFFIXES: [&str; 11] = [
    "keys",
    "secrets",
    "index",
    "audit_entries",
    "audit_index",
    "changes",
    "meta",
    "counters",
    "usage",
    "codes",
    "audit",
];
