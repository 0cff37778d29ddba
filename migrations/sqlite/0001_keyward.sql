-- Keyward's own tables. `{t}` is their prefix. Instants are microseconds since 1970. Identifiers are
-- the 16 bytes of a UUID. Text is compared byte by byte, which is SQLite's default.

CREATE TABLE {t}keys (
    id               BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    tenant           TEXT    NOT NULL,
    account          TEXT    NOT NULL,
    name             TEXT    NOT NULL,
    hint             TEXT    NOT NULL, -- of the current secret
    retiring_hint    TEXT,             -- of the former secret, if there is one
    retiring_ends_at INTEGER,          -- the instant at which the former secret stops working
    access           TEXT,             -- JSON list of scopes; NULL: inherited from the owner
    limits           TEXT,             -- JSON object; NULL: no limits of its own
    networks         TEXT,             -- JSON list; NULL: any network
    metadata         TEXT    NOT NULL, -- JSON object
    created_at       INTEGER NOT NULL,
    expires_at       INTEGER,
    disabled_at      INTEGER,
    revoked_at       INTEGER,
    revoked_reason   TEXT,
    rotated_at       INTEGER,
    rotation_token   BLOB,             -- of the call that made the current secret
    issue_token      BLOB,             -- of the call that issued the key
    first_used_at    INTEGER,
    secret_first_used_at INTEGER,      -- the first use of the current secret
    last_used_at     INTEGER,
    last_used_ip     TEXT,
    revision         INTEGER NOT NULL,
    -- The earlier of revocation and expiry. min() of a NULL is NULL.
    dead_since       INTEGER GENERATED ALWAYS AS
        (min(ifnull(revoked_at, expires_at), ifnull(expires_at, revoked_at))) VIRTUAL,
    CHECK ((revoked_at IS NULL) = (revoked_reason IS NULL)),
    CHECK ((retiring_ends_at IS NULL) = (retiring_hint IS NULL))
) STRICT;
CREATE INDEX {t}keys_by_owner      ON {t}keys (tenant, account, id);
CREATE INDEX {t}keys_by_tenant     ON {t}keys (tenant, id);
CREATE INDEX {t}keys_live          ON {t}keys (tenant, account, expires_at) WHERE revoked_at IS NULL;
CREATE INDEX {t}keys_by_token      ON {t}keys (tenant, account, issue_token) WHERE issue_token IS NOT NULL;
CREATE INDEX {t}keys_by_dead_since ON {t}keys (dead_since) WHERE dead_since IS NOT NULL;

CREATE TABLE {t}secrets (
    digest  BLOB NOT NULL PRIMARY KEY CHECK (length(digest) = 35),
    key_id  BLOB NOT NULL REFERENCES {t}keys (id) ON DELETE CASCADE,
    ends_at INTEGER -- NULL: the current secret
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX {t}secrets_by_key ON {t}secrets (key_id, (ends_at IS NULL));

CREATE TABLE {t}audit (
    id         BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    at         INTEGER NOT NULL,
    kind       TEXT    NOT NULL,
    outcome    TEXT    NOT NULL,
    tenant     TEXT    NOT NULL,
    account    TEXT,
    key_id     BLOB,
    actor      TEXT    NOT NULL,
    ip         TEXT,
    user_agent TEXT,
    reason     TEXT,
    count      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX {t}audit_by_tenant ON {t}audit (tenant, id);
CREATE INDEX {t}audit_by_owner  ON {t}audit (tenant, account, id);
CREATE INDEX {t}audit_by_key    ON {t}audit (key_id, id);
CREATE INDEX {t}audit_by_time   ON {t}audit (at);

CREATE TABLE {t}hourly_usage (
    key_id   BLOB    NOT NULL REFERENCES {t}keys (id) ON DELETE CASCADE,
    hour     INTEGER NOT NULL, -- the instant at which the hour begins
    accepted INTEGER NOT NULL,
    denied   INTEGER NOT NULL,
    limited  INTEGER NOT NULL,
    PRIMARY KEY (key_id, hour)
) STRICT, WITHOUT ROWID;
CREATE INDEX {t}hourly_usage_by_hour ON {t}hourly_usage (hour);

-- The first byte of `counter_key` is its kind: 0 and the id of a key; 1, the length of the tenant,
-- tenant and account of an owner; 2 and the name of a job; 3 and the digest of an anonymous caller.
CREATE TABLE {t}counters (
    counter_key  BLOB    NOT NULL,
    period       TEXT    NOT NULL,
    window_start INTEGER NOT NULL, -- the instant at which the period begins
    used         INTEGER NOT NULL,
    PRIMARY KEY (counter_key, period)
) STRICT, WITHOUT ROWID;
CREATE INDEX {t}counters_anonymous ON {t}counters (window_start)
    WHERE counter_key >= x'03' AND counter_key < x'04';

CREATE TABLE {t}codes (
    address BLOB    NOT NULL PRIMARY KEY CHECK (length(address) = 35), -- its digest
    digest  BLOB    NOT NULL CHECK (length(digest) = 35),              -- of the code
    ends_at INTEGER NOT NULL,
    tries   INTEGER NOT NULL CHECK (tries >= 0) -- wrong attempts left
) STRICT, WITHOUT ROWID;
CREATE INDEX {t}codes_by_end ON {t}codes (ends_at);

-- With AUTOINCREMENT, a number is never reused, even after all entries were purged: SQLite keeps the
-- last number in its table sqlite_sequence. One writer at a time leaves no gaps.
CREATE TABLE {t}changes (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    at     INTEGER NOT NULL,
    key_id BLOB    NOT NULL
) STRICT;
