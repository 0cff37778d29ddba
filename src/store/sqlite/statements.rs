use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr};

use crate::store::sql::KEY;

/// Declares each statement once. It gets the store's prefix when the store is opened.
macro_rules! statements {
    ($($name:ident: $template:expr,)*) => {
        /// All SQL that a store runs after its migration.
        #[derive(Debug)]
        pub(super) struct Statements {
            $(pub(super) $name: SqlStr,)*
        }

        impl Statements {
            pub(super) fn new(prefix: &TablePrefix) -> Self {
                // The clone makes the text shared; otherwise every later clone would copy it.
                Self { $($name: prefix.sql($template).clone(),)* }
            }

            #[cfg(test)]
            fn all(&self) -> Vec<(&'static str, SqlStr)> {
                vec![$((stringify!($name), self.$name.clone()),)*]
            }
        }
    };
}

statements! {
    // Changes of keys and secrets.
    insert_check: "SELECT EXISTS (SELECT 1 FROM {t}keys WHERE id = ?1) \
            OR EXISTS (SELECT 1 FROM {t}secrets WHERE digest = ?2) AS taken, \
        (SELECT id FROM {t}keys WHERE tenant = ?3 AND account = ?4 AND issue_token = ?6 \
            AND created_at >= ?7 LIMIT 1) AS same_token, \
        (SELECT count(*) FROM {t}keys WHERE tenant = ?3 AND account = ?4 \
            AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > ?5)) AS live",
    insert_key: "INSERT INTO {t}keys ({key}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, \
        ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24)",
    insert_secret: "INSERT INTO {t}secrets (digest, key_id, ends_at) VALUES (?1, ?2, NULL)",
    state: "SELECT revision, revoked_at IS NOT NULL AS has_revoked_at, \
        revoked_reason IS NOT NULL AS has_revoked_reason, \
        secret_first_used_at IS NOT NULL AS is_secret_used FROM {t}keys \
        WHERE id = ?1 AND tenant = ?2 AND (?3 IS NULL OR account = ?3)",
    update: "UPDATE {t}keys SET name = ?2, access = ?3, limits = ?4, networks = ?5, metadata = ?6, \
        disabled_at = ?7, revision = revision + 1 WHERE id = ?1",
    digest_exists: "SELECT EXISTS (SELECT 1 FROM {t}secrets WHERE digest = ?1)",
    remove_current: "DELETE FROM {t}secrets WHERE key_id = ?1 AND ends_at IS NULL",
    remove_former: "DELETE FROM {t}secrets WHERE key_id = ?1 AND ends_at IS NOT NULL",
    retire_current: "UPDATE {t}secrets SET ends_at = ?2 WHERE key_id = ?1 AND ends_at IS NULL",
    retire_hint: "UPDATE {t}keys SET retiring_hint = hint, retiring_ends_at = ?2 WHERE id = ?1",
    rotate: "UPDATE {t}keys SET hint = ?2, rotation_token = ?3, rotated_at = ?4, \
        secret_first_used_at = NULL, revision = revision + 1 WHERE id = ?1",
    rehash: "UPDATE {t}secrets SET digest = ?2 WHERE digest = ?1 \
        AND NOT EXISTS (SELECT 1 FROM {t}secrets WHERE digest = ?2)",
    revoke: "UPDATE {t}keys SET revoked_at = ?2, revoked_reason = ?3, revision = revision + 1 \
        WHERE id = ?1 AND revoked_at IS NULL",
    delete: "DELETE FROM {t}keys WHERE id = ?1",
    first_use: "UPDATE {t}keys SET first_used_at = ?4 \
        WHERE id = ?1 AND tenant = ?2 AND account = ?3 AND first_used_at IS NULL",
    secret_use: "UPDATE {t}keys SET secret_first_used_at = ?4 \
        WHERE id = ?1 AND tenant = ?2 AND account = ?3 AND secret_first_used_at IS NULL \
        AND EXISTS (SELECT 1 FROM {t}secrets WHERE digest = ?5 AND key_id = ?1 AND ends_at IS NULL)",
    last_use: "UPDATE {t}keys SET last_used_at = ?4, last_used_ip = ?5 \
        WHERE id = ?1 AND tenant = ?2 AND account = ?3 AND ifnull(last_used_at < ?4, true)",

    // Counters of quotas.
    get_counter: "SELECT window_start, used FROM {t}counters WHERE counter_key = ?1 AND period = ?2",
    set_counter: "INSERT INTO {t}counters (counter_key, period, window_start, used) VALUES (?1, ?2, ?3, ?4) \
        ON CONFLICT (counter_key, period) DO UPDATE SET \
        window_start = excluded.window_start, used = excluded.used",
    delete_counters: "DELETE FROM {t}counters WHERE counter_key = ?1",

    // One-time codes.
    put_code: "INSERT INTO {t}codes (address, digest, ends_at, tries) VALUES (?1, ?2, ?3, ?4) \
        ON CONFLICT (address) DO UPDATE SET \
        digest = excluded.digest, ends_at = excluded.ends_at, tries = excluded.tries",
    get_code: "SELECT digest, ends_at, tries FROM {t}codes WHERE address = ?1",
    delete_code: "DELETE FROM {t}codes WHERE address = ?1",
    decrement_tries: "UPDATE {t}codes SET tries = tries - 1 WHERE address = ?1",
    purge_codes: "DELETE FROM {t}codes WHERE address IN \
        (SELECT address FROM {t}codes WHERE ends_at < ?1 ORDER BY ends_at LIMIT ?2)",
    purge_anonymous_counters: "DELETE FROM {t}counters WHERE (counter_key, period) IN \
        (SELECT counter_key, period FROM {t}counters \
        WHERE counter_key >= x'03' AND counter_key < x'04' AND window_start < ?1 \
        ORDER BY window_start LIMIT ?2)",

    // Hourly usage.
    add_usage: "INSERT INTO {t}hourly_usage (key_id, hour, accepted, denied, limited) \
        SELECT id, ?2, ?3, ?4, ?5 FROM {t}keys WHERE id = ?1 \
        ON CONFLICT (key_id, hour) DO UPDATE SET \
        accepted = accepted + excluded.accepted, denied = denied + excluded.denied, \
        limited = limited + excluded.limited",
    usage_history: "SELECT hour, accepted, denied, limited \
        FROM {t}hourly_usage JOIN {t}keys ON id = key_id \
        WHERE key_id = ?1 AND tenant = ?2 AND (?3 IS NULL OR account = ?3) AND hour >= ?4 \
        ORDER BY hour",
    purge_usage: "DELETE FROM {t}hourly_usage WHERE (key_id, hour) IN \
        (SELECT key_id, hour FROM {t}hourly_usage WHERE hour < ?1 ORDER BY hour LIMIT ?2)",

    // Reads of keys.
    find_one: "SELECT {key}, digest, ends_at FROM {t}secrets JOIN {t}keys ON id = key_id \
        WHERE digest = ?1",
    find_any: "SELECT {key}, digest, ends_at FROM {t}secrets JOIN {t}keys ON id = key_id \
        WHERE digest IN (SELECT unhex(value) FROM json_each(?1))",
    get: "SELECT {key} FROM {t}keys WHERE id = ?1 AND tenant = ?2 AND (?3 IS NULL OR account = ?3)",
    list_of_owner: "SELECT {key} FROM {t}keys WHERE tenant = ?1 AND account = ?2 AND {page_of_keys}",
    list_of_tenant: "SELECT {key} FROM {t}keys WHERE tenant = ?1 AND ?2 IS NULL AND {page_of_keys}",
    // Jumps from one tenant to the next by index, past all keys between them.
    tenants: "WITH RECURSIVE found (tenant) AS (SELECT CASE WHEN ?1 IS NULL \
            THEN (SELECT min(tenant) FROM {t}keys) \
            ELSE (SELECT min(tenant) FROM {t}keys WHERE tenant > ?1) END \
        UNION ALL SELECT (SELECT min(k.tenant) FROM {t}keys k WHERE k.tenant > found.tenant) \
            FROM found WHERE found.tenant IS NOT NULL) \
        SELECT tenant FROM found WHERE tenant IS NOT NULL LIMIT ?2",
    unrevoked: "SELECT id, tenant, account FROM {t}keys WHERE tenant = ?1 AND account = ?2 \
        AND revoked_at IS NULL ORDER BY id",
    // `+id` makes SQLite sort the dead keys instead of scanning all keys in the order of their ids.
    dead_keys: "SELECT id, tenant, account FROM {t}keys WHERE dead_since < ?1 ORDER BY +id LIMIT ?2",

    // The audit log.
    insert_event: "INSERT INTO {t}audit ({event}) \
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) ON CONFLICT (id) DO NOTHING",
    events_of_key: "SELECT {event} FROM {t}audit WHERE tenant = ?1 \
        AND (?2 IS NULL OR account = ?2) AND key_id = ?3 AND {page_of_events}",
    events_of_owner: "SELECT {event} FROM {t}audit WHERE tenant = ?1 AND account = ?2 \
        AND ?3 IS NULL AND {page_of_events}",
    events_of_tenant: "SELECT {event} FROM {t}audit WHERE tenant = ?1 AND ?2 IS NULL \
        AND ?3 IS NULL AND {page_of_events}",
    purge_events: "DELETE FROM {t}audit WHERE id IN \
        (SELECT id FROM {t}audit WHERE at < ?1 ORDER BY +id LIMIT ?2)",

    // The change feed. Entries are numbered without gaps and purged from the oldest on.
    insert_change: "INSERT INTO {t}changes (at, key_id) VALUES (?1, ?2)",
    announce: "INSERT INTO {t}changes (at, key_id) SELECT ?3, id FROM {t}keys \
        WHERE tenant = ?1 AND account = ?2 AND revoked_at IS NULL",
    last_change: "SELECT ifnull((SELECT seq FROM sqlite_sequence WHERE name = '{t}changes'), 0)",
    changes: "SELECT last, first, number, key_id FROM \
        (SELECT ifnull((SELECT seq FROM sqlite_sequence WHERE name = '{t}changes'), 0) AS last, \
            (SELECT min(number) FROM {t}changes) AS first) \
        LEFT JOIN (SELECT number, key_id FROM {t}changes WHERE number > ?1 \
            ORDER BY number LIMIT ?2) ORDER BY number",
    purge_changes: "DELETE FROM {t}changes WHERE number < ifnull(\
        (SELECT number FROM {t}changes WHERE at >= ?1 ORDER BY number LIMIT 1), 9223372036854775807)",
}

/// The prefix of a store's table names.
#[derive(Clone, Debug)]
pub(super) struct TablePrefix(pub(super) String);

impl TablePrefix {
    pub(super) fn sql(&self, template: &str) -> SqlStr {
        let sql = template
            .replace("{key}", KEY)
            .replace("{event}", EVENT)
            .replace("{page_of_keys}", PAGE_OF_KEYS)
            .replace("{page_of_events}", PAGE_OF_EVENTS)
            .replace("{t}", &self.0);
        // Safe: the prefix consists of letters, digits and underscores only.
        AssertSqlSafe(sql).into_sql_str()
    }
}

/// The columns of an event, in the order of `records::bind_event`.
const EVENT: &str =
    "id, at, kind, outcome, tenant, account, key_id, actor, ip, user_agent, reason, count";

/// `Key::status` in SQL: the first status that applies.
const PAGE_OF_KEYS: &str = "id < ?3 AND (?4 IS NULL OR ?4 = CASE \
    WHEN revoked_at IS NOT NULL THEN 'revoked' WHEN expires_at <= ?5 THEN 'expired' \
    WHEN disabled_at IS NOT NULL THEN 'disabled' ELSE 'active' END) ORDER BY id DESC LIMIT ?6";

const PAGE_OF_EVENTS: &str = "(?4 IS NULL OR kind = ?4) AND (?5 IS NULL OR at >= ?5) \
    AND (?6 IS NULL OR at < ?6) AND id < ?7 ORDER BY id DESC LIMIT ?8";

#[cfg(test)]
mod tests {
    use sqlx::{Row, sqlite::SqliteRow};

    use super::super::{SqliteOptions, SqliteStore};
    use super::*;

    /// Scans of few rows: one row of a subquery, the requested digests, one row per table of the
    /// file, the purged entries of the feed, and the tenants found.
    const SMALL_SCANS: [&str; 6] = [
        "SCAN (subquery",
        "find_any: SCAN json_each",
        "SCAN CONSTANT ROW",
        "SCAN sqlite_sequence",
        "purge_changes: SCAN keyward_changes",
        "tenants: SCAN found",
    ];

    #[tokio::test]
    async fn the_key_of_a_token_is_found_by_the_index_of_tokens() {
        let store: SqliteStore = SqliteOptions::new().in_memory().await.unwrap();
        let sql = store.database.sql.insert_check.as_str();
        let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
        let mut lease = store.database.writer.lease().await.ok().unwrap();
        let rows = sqlx::query(explain).fetch_all(&mut *lease).await.unwrap();
        let steps: Vec<String> = rows.iter().map(|row: &SqliteRow| row.get("detail")).collect();
        let by_token = "keyward_keys_by_token (tenant=? AND account=? AND issue_token=?)";
        assert!(steps.iter().any(|step| step.contains(by_token)), "{steps:#?}");
    }

    #[tokio::test]
    async fn every_statement_uses_an_index() {
        let store: SqliteStore = SqliteOptions::new().in_memory().await.unwrap();
        for (name, sql) in store.database.sql.all() {
            let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {}", sql.as_str()));
            let mut lease = store.database.writer.lease().await.ok().unwrap();
            let rows = sqlx::query(explain).fetch_all(&mut *lease).await.unwrap();
            for step in rows.iter().map(|row: &SqliteRow| row.get::<String, _>("detail")) {
                let step = format!("{name}: {step}");
                let small = SMALL_SCANS.iter().any(|small| step.contains(small));
                assert!(small || !step.contains("SCAN"), "{step}");
            }
        }
    }
}
