//! Tokens that are refused before they expire, by digest.

use crate::{Store, StoreFault};
use sqlx::Row;
use vocab::{Digest, Timestamp};

/// A revoked token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RevokedToken {
    /// Digest that names the token.
    pub hash: Digest,
    /// When it expires by itself.
    pub until: Timestamp,
}

impl Store {
    /// Revokes a token; a second time keeps the later end.
    pub async fn revoke_token(&self, token: RevokedToken, now: Timestamp) -> Result<(), StoreFault> {
        sqlx::query(
            "INSERT INTO revoked_tokens (hash, until_at, revoked_at) VALUES ($1, $2, $3)
             ON CONFLICT (hash) DO UPDATE SET until_at = excluded.until_at
             WHERE revoked_tokens.until_at < excluded.until_at",
        )
        .bind(token.hash.to_string())
        .bind(token.until.as_micros())
        .bind(now.as_micros())
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// The revoked tokens that have not expired at `now`.
    pub async fn revoked_tokens(&self, now: Timestamp) -> Result<Vec<RevokedToken>, StoreFault> {
        let damaged = |column| StoreFault::Damaged { table: "revoked_tokens", column };
        let rows = sqlx::query("SELECT hash, until_at FROM revoked_tokens WHERE until_at > $1")
            .bind(now.as_micros())
            .fetch_all(&self.pool)
            .await?;
        let mut tokens = Vec::with_capacity(rows.len());
        for row in rows {
            let hash = row.try_get::<String, _>("hash")?.parse().map_err(|_| damaged("hash"))?;
            tokens.push(RevokedToken { hash, until: Timestamp::from_micros(row.try_get("until_at")?) });
        }
        Ok(tokens)
    }

    /// Forgets tokens that have expired at `now`. Returns how many.
    pub async fn forget_expired_tokens(&self, now: Timestamp) -> Result<u64, StoreFault> {
        let done = sqlx::query("DELETE FROM revoked_tokens WHERE until_at <= $1")
            .bind(now.as_micros())
            .execute(&self.pool)
            .await?;
        Ok(done.rows_affected())
    }
}
