use std::sync::LazyLock;

use redis::Cmd;

use super::names::Names;

/// One operation of the store, which the server runs whole: nothing comes between its parts, and
/// a caller who goes away leaves nothing half done.
pub(super) struct Script {
    hash: String,
    text: String,
}

/// `write` runs only where all of it can be written; `end` also on a server whose memory is full,
/// because what takes a key out of use must not wait for room; `read` writes nothing.
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
    TOUCH: write "touch.lua",
    RECORD: write "record.lua",
    TALLY: write "tally.lua",
    SPEND: write "spend.lua",
    REFUND: write "refund.lua",
    PUT_CODE: write "put_code.lua",
    TRY_CODE: write "try_code.lua",
    REVOKE: end "revoke.lua",
    REVOKE_ALL: end "revoke_all.lua",
    ANNOUNCE: end "announce.lua",
    DELETE: end "delete.lua",
    PURGE_KEYS: end "purge_keys.lua",
    PURGE_EVENTS: end "purge_events.lua",
    PURGE_CHANGES: end "purge_changes.lua",
    PURGE_TALLIES: end "purge_tallies.lua",
    PURGE_CODES: end "purge_codes.lua",
    GET: bare "get.lua",
    LIST: read "list.lua",
    DEAD: read "dead.lua",
    EVENTS: read "events.lua",
    OLD_EVENTS: read "old_events.lua",
    CHANGES: read "changes.lua",
    TALLIES: read "tallies.lua",
    TENANTS: read "tenants.lua",
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

    /// Without the prelude, of which it needs nothing.
    fn bare(body: &str) -> Self {
        Self::new(&format!("#!lua flags=no-writes\n{body}"))
    }

    fn new(text: &str) -> Self {
        Self { hash: redis::Script::new(text).get_hash().into(), text: text.into() }
    }

    /// Runs it by its hash.
    pub(super) fn by_hash<'a>(
        &self,
        names: &Names,
        arguments: impl IntoIterator<Item = &'a [u8]>,
    ) -> Cmd {
        command("EVALSHA", &self.hash, names, arguments)
    }

    /// Sends it along, for a server that does not know it any more.
    pub(super) fn by_text<'a>(
        &self,
        names: &Names,
        arguments: impl IntoIterator<Item = &'a [u8]>,
    ) -> Cmd {
        command("EVAL", &self.text, names, arguments)
    }
}

fn command<'a>(
    name: &str,
    script: &str,
    names: &Names,
    arguments: impl IntoIterator<Item = &'a [u8]>,
) -> Cmd {
    let mut command = redis::cmd(name);
    command.arg(script).arg(names.0.len());
    for key in &names.0 {
        command.arg(key);
    }
    for argument in arguments {
        command.arg(argument);
    }
    command
}

const PRELUDE: &str = include_str!("scripts/prelude.lua");
