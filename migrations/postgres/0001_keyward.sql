-- Keyward's own tables. `{t}` is the schema with a dot and the prefix, `{p}` the prefix alone.
-- Instants are microseconds since 1970. Text compares byte by byte, whatever the database's locale.

CREATE TABLE {t}keys (
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
CREATE INDEX {p}keys_by_owner  ON {t}keys (tenant, account, id DESC);
CREATE INDEX {p}keys_by_tenant ON {t}keys (tenant, id DESC);
CREATE INDEX {p}keys_by_death  ON {t}keys (LEAST(revoked_at, expires_at))
    WHERE revoked_at IS NOT NULL OR expires_at IS NOT NULL;

CREATE TABLE {t}secrets (
    digest bytea   PRIMARY KEY CHECK (octet_length(digest) = 35),
    key_id uuid    NOT NULL REFERENCES {t}keys ON DELETE CASCADE,
    former boolean NOT NULL, -- else it is the current secret
    UNIQUE (key_id, former)
);

CREATE TABLE {t}audit (
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
CREATE INDEX {p}audit_by_tenant ON {t}audit (tenant, id DESC);
CREATE INDEX {p}audit_by_owner  ON {t}audit (tenant, account, id DESC);
CREATE INDEX {p}audit_by_key    ON {t}audit (key_id, id DESC);
CREATE INDEX {p}audit_by_time   ON {t}audit (at);

CREATE TABLE {t}tallies (
    key_id   uuid   REFERENCES {t}keys ON DELETE CASCADE,
    hour     bigint, -- the instant at which it began
    accepted bigint NOT NULL,
    denied   bigint NOT NULL,
    limited  bigint NOT NULL,
    PRIMARY KEY (key_id, hour)
);
CREATE INDEX {p}tallies_by_hour ON {t}tallies (hour);

CREATE TABLE {t}quotas (
    payer  bytea, -- of a key: 0 and its id; of an owner: 1, tenant with its length, account; of a job: 2, name; of a guest: 3, digest
    period text   COLLATE "C",
    begun  bigint NOT NULL, -- the instant at which the period began
    used   bigint NOT NULL,
    PRIMARY KEY (payer, period)
);
CREATE INDEX {p}quotas_of_guests ON {t}quotas (begun) WHERE payer >= '\x03' AND payer < '\x04';

CREATE TABLE {t}codes (
    address bytea  PRIMARY KEY CHECK (octet_length(address) = 35), -- digest of it
    digest  bytea  NOT NULL CHECK (octet_length(digest) = 35),
    ends_at bigint NOT NULL,
    tries   bigint NOT NULL CHECK (tries >= 0) -- how many are left
);
CREATE INDEX {p}codes_by_end ON {t}codes (ends_at);

-- Numbered under a lock that is held until the commit, so that what is read is read in order.
CREATE TABLE {t}changes (
    number bigint PRIMARY KEY,
    at     bigint NOT NULL,
    key_id uuid   NOT NULL
);
CREATE TABLE {t}feed (
    id        smallint PRIMARY KEY DEFAULT 1 CHECK (id = 1), -- one row
    last      bigint  NOT NULL, -- the number of the last change
    forgotten bigint  NOT NULL  -- up to here, changes were purged
);
INSERT INTO {t}feed (last, forgotten) VALUES (0, 0);
