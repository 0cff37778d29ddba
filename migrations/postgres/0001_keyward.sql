-- Keyward's own tables. To use another prefix than `keyward_`, replace it everywhere; to use another schema,
-- put that first in the search path. Run this file in one transaction, as `psql -1 -f` does.
-- Instants are microseconds since 1970. Text is compared byte by byte, independent of the database's locale.

CREATE TABLE keyward_migrations (version bigint PRIMARY KEY);

CREATE TABLE keyward_keys (
    id                uuid   PRIMARY KEY,
    tenant            text   COLLATE "C" NOT NULL,
    account           text   COLLATE "C" NOT NULL,
    name              text   NOT NULL,
    hint              text   NOT NULL, -- of the current secret
    retiring_hint     text,            -- of the former secret, if there is one
    retiring_ends_at  bigint,          -- the instant at which the former secret stops working
    access            text,            -- JSON list of scopes; NULL: inherited from the owner
    limits            text,            -- JSON object; NULL: no limits of its own
    networks          text,            -- JSON list; NULL: any network
    metadata          text   NOT NULL, -- JSON object
    created_at        bigint NOT NULL,
    expires_at        bigint,
    disabled_at       bigint,
    revoked_at        bigint,
    revoked_reason    text,
    rotated_at        bigint,
    rotation_token    bytea,           -- of the call that made the current secret
    issue_token       bytea,           -- of the call that issued the key
    first_used_at     bigint,
    secret_first_used_at bigint,       -- the first use of the current secret
    last_used_at      bigint,
    last_used_ip      text,
    revision          bigint NOT NULL,
    CHECK ((revoked_at IS NULL) = (revoked_reason IS NULL)),
    CHECK ((retiring_hint IS NULL) = (retiring_ends_at IS NULL))
);
CREATE INDEX keyward_keys_by_owner      ON keyward_keys (tenant, account, id DESC);
CREATE INDEX keyward_keys_by_tenant     ON keyward_keys (tenant, id DESC);
CREATE INDEX keyward_keys_by_token      ON keyward_keys (tenant, account, issue_token)
    WHERE issue_token IS NOT NULL;
CREATE INDEX keyward_keys_by_dead_since ON keyward_keys (LEAST(revoked_at, expires_at))
    WHERE revoked_at IS NOT NULL OR expires_at IS NOT NULL;

CREATE TABLE keyward_secrets (
    digest bytea   PRIMARY KEY CHECK (octet_length(digest) = 35),
    key_id uuid    NOT NULL REFERENCES keyward_keys ON DELETE CASCADE,
    former boolean NOT NULL, -- false: the current secret
    UNIQUE (key_id, former)
);

CREATE TABLE keyward_audit (
    id         uuid    PRIMARY KEY,
    at         bigint  NOT NULL,
    kind       text    NOT NULL,
    success    boolean NOT NULL,
    tenant     text    COLLATE "C" NOT NULL,
    account    text    COLLATE "C",
    key_id     uuid,
    actor      text    NOT NULL,
    ip         text,
    user_agent text,
    reason     text,
    count      bigint  NOT NULL
);
CREATE INDEX keyward_audit_by_tenant ON keyward_audit (tenant, id DESC);
CREATE INDEX keyward_audit_by_owner  ON keyward_audit (tenant, account, id DESC);
CREATE INDEX keyward_audit_by_key    ON keyward_audit (key_id, id DESC);
CREATE INDEX keyward_audit_by_time   ON keyward_audit (at);

CREATE TABLE keyward_hourly_usage (
    key_id   uuid   REFERENCES keyward_keys ON DELETE CASCADE,
    hour     bigint, -- the instant at which the hour begins
    accepted bigint NOT NULL,
    denied   bigint NOT NULL,
    limited  bigint NOT NULL,
    PRIMARY KEY (key_id, hour)
);
CREATE INDEX keyward_hourly_usage_by_hour ON keyward_hourly_usage (hour);

-- The first byte of `counter_key` is its kind: 0 and the id of a key; 1, the length of the tenant, tenant and
-- account of an owner; 2 and the name of a job; 3 and the digest of an anonymous caller.
CREATE TABLE keyward_counters (
    counter_key  bytea,
    period       text   COLLATE "C",
    window_start bigint NOT NULL, -- the instant at which the period begins
    used         bigint NOT NULL,
    PRIMARY KEY (counter_key, period)
);
CREATE INDEX keyward_counters_anonymous ON keyward_counters (window_start)
    WHERE counter_key >= '\x03' AND counter_key < '\x04';

CREATE TABLE keyward_codes (
    address bytea  PRIMARY KEY CHECK (octet_length(address) = 35), -- its digest
    digest  bytea  NOT NULL CHECK (octet_length(digest) = 35),     -- of the code
    ends_at bigint NOT NULL,
    tries   bigint NOT NULL CHECK (tries >= 0) -- wrong attempts left
);
CREATE INDEX keyward_codes_by_end ON keyward_codes (ends_at);

-- A change writes its entry without a number, so that changes do not wait for each other. Readers, and the node that
-- made the change, move committed entries to keyward_changes and number them there, under the lock on the row of
-- keyward_feed: so entries become visible in the order of their numbers. The random tag differs when a number is used
-- again after a failover or a restored backup.
CREATE TABLE keyward_unnumbered_changes (
    at     bigint NOT NULL,
    key_id uuid   NOT NULL
);
-- Without it, a publication of all tables would make the server reject the DELETE.
ALTER TABLE keyward_unnumbered_changes REPLICA IDENTITY FULL;
CREATE TABLE keyward_changes (
    number bigint PRIMARY KEY,
    tag    bigint NOT NULL,
    at     bigint NOT NULL,
    key_id uuid   NOT NULL
);
CREATE TABLE keyward_feed (
    id            smallint PRIMARY KEY DEFAULT 1 CHECK (id = 1), -- one row
    purged_number bigint   NOT NULL, -- the last purged entry
    purged_tag    bigint   NOT NULL
);
INSERT INTO keyward_feed (purged_number, purged_tag) VALUES (0, 0);

INSERT INTO keyward_migrations (version) VALUES (1);
