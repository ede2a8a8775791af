-- Times are microseconds since 1970-01-01T00:00:00Z.

CREATE TABLE api_keys (
    id         TEXT    PRIMARY KEY NOT NULL, -- the public part of the key
    hash       TEXT    UNIQUE NOT NULL,      -- digest of the whole key; the key itself is nowhere
    tenant     TEXT    NOT NULL,
    kind       TEXT    NOT NULL CHECK (kind IN ('agent', 'admin')),
    holder     TEXT    NOT NULL,             -- an agent's name, or a management role
    label      TEXT    NOT NULL,
    created_at BIGINT  NOT NULL,
    expires_at BIGINT,
    revoked_at BIGINT
);

CREATE INDEX api_keys_by_holder ON api_keys (tenant, kind, holder);

-- What was decided about agents at run time. It beats the configuration.
CREATE TABLE agents (
    tenant      TEXT   NOT NULL,
    name        TEXT   NOT NULL,
    disabled_at BIGINT,
    reason      TEXT,
    PRIMARY KEY (tenant, name)
);
