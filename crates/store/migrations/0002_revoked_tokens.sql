-- Tokens that are refused before they expire.
CREATE TABLE revoked_tokens (
    hash       TEXT   PRIMARY KEY NOT NULL, -- digest of the token's signed part
    until_at   BIGINT NOT NULL,             -- when it expires by itself and may be forgotten
    revoked_at BIGINT NOT NULL
);

CREATE INDEX revoked_tokens_by_end ON revoked_tokens (until_at);
