-- Keyward's own tables. For another prefix than `keyward_`, put that in its place everywhere; for another
-- schema, let it come first in the search path. Run it in one transaction, as `psql -1 -f` does.
-- Instants are microseconds since 1970. Text compares byte by byte, whatever the database's locale.

CREATE TABLE keyward_migrations (version bigint PRIMARY KEY);

CREATE TABLE keyward_keys (
    id                uuid   PRIMARY KEY,
    tenant            text   COLLATE "C" NOT NULL,
    account           text   COLLATE "C" NOT NULL,
    name              text   NOT NULL,
    hint              text   NOT NULL,
    retiring_hint     text,            -- of the former secret, with
    retiring_ends_at  bigint,          -- the instant at which it ends
    access            text,            -- JSON list of scopes; NULL: all that the owner may do
    limits            text,            -- JSON object; NULL: none of its own
    networks          text,            -- JSON list; NULL: from anywhere
    metadata          text   NOT NULL, -- JSON object
    created_at        bigint NOT NULL,
    expires_at        bigint,
    disabled_at       bigint,
    revoked_at        bigint,
    revoked_reason    text,
    rotated_at        bigint,
    rotation_token    bytea,
    first_used_at     bigint,
    last_used_at      bigint,
    last_used_ip      text,
    revision          bigint NOT NULL,
    CHECK ((revoked_at IS NULL) = (revoked_reason IS NULL)),
    CHECK ((retiring_hint IS NULL) = (retiring_ends_at IS NULL))
);
CREATE INDEX keyward_keys_by_owner  ON keyward_keys (tenant, account, id DESC);
CREATE INDEX keyward_keys_by_tenant ON keyward_keys (tenant, id DESC);
CREATE INDEX keyward_keys_by_death  ON keyward_keys (LEAST(revoked_at, expires_at))
    WHERE revoked_at IS NOT NULL OR expires_at IS NOT NULL;

CREATE TABLE keyward_secrets (
    digest bytea   PRIMARY KEY CHECK (octet_length(digest) = 35),
    key_id uuid    NOT NULL REFERENCES keyward_keys ON DELETE CASCADE,
    former boolean NOT NULL, -- else it is the current secret
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

CREATE TABLE keyward_tallies (
    key_id   uuid   REFERENCES keyward_keys ON DELETE CASCADE,
    hour     bigint, -- the instant at which it began
    accepted bigint NOT NULL,
    denied   bigint NOT NULL,
    limited  bigint NOT NULL,
    PRIMARY KEY (key_id, hour)
);
CREATE INDEX keyward_tallies_by_hour ON keyward_tallies (hour);

CREATE TABLE keyward_quotas (
    payer  bytea, -- of a key: 0 and its id; of an owner: 1, tenant with its length, account; of a job: 2, name; of a guest: 3, digest
    period text   COLLATE "C",
    begun  bigint NOT NULL, -- the instant at which the period began
    used   bigint NOT NULL,
    PRIMARY KEY (payer, period)
);
CREATE INDEX keyward_quotas_of_guests ON keyward_quotas (begun) WHERE payer >= '\x03' AND payer < '\x04';

CREATE TABLE keyward_codes (
    address bytea  PRIMARY KEY CHECK (octet_length(address) = 35), -- digest of it
    digest  bytea  NOT NULL CHECK (octet_length(digest) = 35),
    ends_at bigint NOT NULL,
    tries   bigint NOT NULL CHECK (tries >= 0) -- how many are left
);
CREATE INDEX keyward_codes_by_end ON keyward_codes (ends_at);

-- Numbered under a lock that is held until the commit, so that what is read is read in order. The tag is
-- another one where a number comes a second time, after a failover or from a backup.
CREATE TABLE keyward_changes (
    number bigint PRIMARY KEY,
    tag    bigint NOT NULL,
    at     bigint NOT NULL,
    key_id uuid   NOT NULL
);
CREATE TABLE keyward_feed (
    id            smallint PRIMARY KEY DEFAULT 1 CHECK (id = 1), -- one row
    last          bigint   NOT NULL, -- the number of the last change
    tag           bigint   NOT NULL, -- and its tag
    forgotten     bigint   NOT NULL, -- up to here, changes were purged
    forgotten_tag bigint   NOT NULL
);
INSERT INTO keyward_feed (last, tag, forgotten, forgotten_tag) VALUES (0, 0, 0, 0);

INSERT INTO keyward_migrations (version) VALUES (1);
