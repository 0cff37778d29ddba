-- Keyward's own tables; `{t}` is their prefix. Instants are microseconds since 1970, identifiers
-- are the sixteen bytes of a UUID. Text compares byte by byte, as it does by default.

CREATE TABLE {t}keys (
    id               BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    tenant           TEXT    NOT NULL,
    account          TEXT    NOT NULL,
    name             TEXT    NOT NULL,
    hint             TEXT    NOT NULL,
    retiring_hint    TEXT,
    retiring_ends_at INTEGER,
    access           TEXT,             -- JSON list of scopes; NULL: all that the owner may do
    limits           TEXT,             -- JSON object; NULL: none of its own
    networks         TEXT,             -- JSON list; NULL: from anywhere
    metadata         TEXT    NOT NULL, -- JSON object
    created_at       INTEGER NOT NULL,
    expires_at       INTEGER,
    disabled_at      INTEGER,
    revoked_at       INTEGER,
    revoked_reason   TEXT,
    rotated_at       INTEGER,
    rotation_token   BLOB,
    first_used_at    INTEGER,
    last_used_at     INTEGER,
    last_used_ip     TEXT,
    revision         INTEGER NOT NULL,
    -- The earlier of the two; min() of a NULL is NULL.
    dead_since       INTEGER GENERATED ALWAYS AS
        (min(ifnull(revoked_at, expires_at), ifnull(expires_at, revoked_at))) VIRTUAL,
    CHECK ((revoked_at IS NULL) = (revoked_reason IS NULL)),
    CHECK ((retiring_ends_at IS NULL) = (retiring_hint IS NULL))
) STRICT;
CREATE INDEX {t}keys_by_owner  ON {t}keys (tenant, account, id);
CREATE INDEX {t}keys_by_tenant ON {t}keys (tenant, id);
CREATE INDEX {t}keys_live      ON {t}keys (tenant, account, expires_at) WHERE revoked_at IS NULL;
CREATE INDEX {t}keys_by_death  ON {t}keys (dead_since) WHERE dead_since IS NOT NULL;

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

CREATE TABLE {t}tallies (
    key_id   BLOB    NOT NULL REFERENCES {t}keys (id) ON DELETE CASCADE,
    hour     INTEGER NOT NULL, -- the instant at which it began
    accepted INTEGER NOT NULL,
    denied   INTEGER NOT NULL,
    limited  INTEGER NOT NULL,
    PRIMARY KEY (key_id, hour)
) STRICT, WITHOUT ROWID;
CREATE INDEX {t}tallies_by_hour ON {t}tallies (hour);

CREATE TABLE {t}quotas (
    payer  BLOB    NOT NULL, -- of a key: 0 and its id; of an owner: 1, tenant with its length, account; of a job: 2, name; of a guest: 3, digest
    period TEXT    NOT NULL,
    begun  INTEGER NOT NULL, -- the instant at which the period began
    used   INTEGER NOT NULL,
    PRIMARY KEY (payer, period)
) STRICT, WITHOUT ROWID;
CREATE INDEX {t}quotas_of_guests ON {t}quotas (begun) WHERE payer >= x'03' AND payer < x'04';

CREATE TABLE {t}codes (
    address BLOB    NOT NULL PRIMARY KEY CHECK (length(address) = 35), -- digest of it
    digest  BLOB    NOT NULL CHECK (length(digest) = 35),
    ends_at INTEGER NOT NULL,
    tries   INTEGER NOT NULL CHECK (tries >= 0) -- how many are left
) STRICT, WITHOUT ROWID;
CREATE INDEX {t}codes_by_end ON {t}codes (ends_at);

-- AUTOINCREMENT: a number is never given twice, also when all entries were purged. SQLite keeps
-- the last one in its own table sqlite_sequence. One writer at a time, so there are no gaps.
CREATE TABLE {t}changes (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    at     INTEGER NOT NULL,
    key_id BLOB    NOT NULL
) STRICT;
