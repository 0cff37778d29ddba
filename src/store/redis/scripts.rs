use std::sync::LazyLock;

use redis::Cmd;

/// One operation of the store. The server runs a script atomically, also when its caller is gone.
pub(super) struct Script {
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
    GET: bare "get.lua",
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

    fn new(text: &str) -> Self {
        Self { hash: redis::Script::new(text).get_hash().into(), text: text.into() }
    }

    /// Returns the command that runs the script by its hash.
    pub(super) fn by_hash<'a>(
        &self,
        keys: &RedisKeys,
        arguments: impl IntoIterator<Item = &'a [u8]>,
    ) -> Cmd {
        command("EVALSHA", &self.hash, keys, arguments)
    }

    /// Returns the command that sends the script's text, for a server that does not have it cached.
    pub(super) fn by_text<'a>(
        &self,
        keys: &RedisKeys,
        arguments: impl IntoIterator<Item = &'a [u8]>,
    ) -> Cmd {
        command("EVAL", &self.text, keys, arguments)
    }
}

fn command<'a>(
    name: &str,
    script: &str,
    keys: &RedisKeys,
    arguments: impl IntoIterator<Item = &'a [u8]>,
) -> Cmd {
    let mut command = redis::cmd(name);
    command.arg(script).arg(keys.0.len());
    for key in &keys.0 {
        command.arg(key);
    }
    for argument in arguments {
        command.arg(argument);
    }
    command
}

const PRELUDE: &str = include_str!("scripts/prelude.lua");

/// The names of a store's Redis keys. All have the same hash tag, so that a cluster keeps them on one
/// node. No user input is part of a name.
#[derive(Debug)]
pub(super) struct RedisKeys([String; 11]);

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
