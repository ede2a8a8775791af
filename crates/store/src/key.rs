//! API keys: one row each, as a digest. Rows are never deleted, so that a record can always name its key.

use crate::{Store, StoreFault};
use sqlx::{Row, sqlite::SqliteRow};
use vocab::{AgentId, Digest, TenantId, Timestamp};

/// What a key opens, and for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyUse {
    /// The data plane, as this agent.
    Agent(AgentId),
    /// The management API, with this role.
    Admin(String),
}

impl KeyUse {
    fn columns(&self) -> (&'static str, &str) {
        match self {
            Self::Agent(agent) => ("agent", agent.as_str()),
            Self::Admin(role) => ("admin", role),
        }
    }
}

/// One API key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRow {
    /// The public part.
    pub id: String,
    /// Digest of the whole key.
    pub hash: Digest,
    /// Whose it is.
    pub tenant: TenantId,
    /// What it opens.
    pub opens: KeyUse,
    /// What people call it.
    pub label: String,
    /// When it was made.
    pub created: Timestamp,
    /// From when on it is refused.
    pub expires: Option<Timestamp>,
    /// When it was revoked.
    pub revoked: Option<Timestamp>,
}

impl KeyRow {
    fn read(row: &SqliteRow) -> Result<Self, StoreFault> {
        let damaged = |column| StoreFault::Damaged { table: "api_keys", column };
        let holder: String = row.try_get("holder")?;
        let opens = match row.try_get::<String, _>("kind")?.as_str() {
            "agent" => KeyUse::Agent(AgentId::new(&holder).map_err(|_| damaged("holder"))?),
            "admin" => KeyUse::Admin(holder),
            _ => return Err(damaged("kind")),
        };
        Ok(Self {
            id: row.try_get("id")?,
            hash: row.try_get::<String, _>("hash")?.parse().map_err(|_| damaged("hash"))?,
            tenant: row.try_get::<String, _>("tenant")?.parse().map_err(|_| damaged("tenant"))?,
            opens,
            label: row.try_get("label")?,
            created: Timestamp::from_micros(row.try_get("created_at")?),
            expires: row.try_get::<Option<i64>, _>("expires_at")?.map(Timestamp::from_micros),
            revoked: row.try_get::<Option<i64>, _>("revoked_at")?.map(Timestamp::from_micros),
        })
    }
}

impl Store {
    /// Adds a key. [`StoreFault::Duplicate`] if its id or digest exists: draw another.
    pub async fn add_key(&self, key: &KeyRow) -> Result<(), StoreFault> {
        let (kind, holder) = key.opens.columns();
        sqlx::query(
            "INSERT INTO api_keys (id, hash, tenant, kind, holder, label, created_at, expires_at, revoked_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(&key.id)
        .bind(key.hash.to_string())
        .bind(key.tenant.as_str())
        .bind(kind)
        .bind(holder)
        .bind(&key.label)
        .bind(key.created.as_micros())
        .bind(key.expires.map(Timestamp::as_micros))
        .bind(key.revoked.map(Timestamp::as_micros))
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Every key, oldest first.
    pub async fn keys(&self) -> Result<Vec<KeyRow>, StoreFault> {
        let rows = sqlx::query("SELECT * FROM api_keys ORDER BY created_at, id").fetch_all(&self.pool).await?;
        rows.iter().map(KeyRow::read).collect()
    }

    /// One key.
    pub async fn key(&self, id: &str) -> Result<Option<KeyRow>, StoreFault> {
        let row = sqlx::query("SELECT * FROM api_keys WHERE id = $1").bind(id).fetch_optional(&self.pool).await?;
        row.as_ref().map(KeyRow::read).transpose()
    }

    /// Revokes a key for good. Returns whether there is one that was not revoked before.
    pub async fn revoke_key(&self, id: &str, now: Timestamp) -> Result<bool, StoreFault> {
        let done = sqlx::query("UPDATE api_keys SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL")
            .bind(id)
            .bind(now.as_micros())
            .execute(&self.pool)
            .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Sets from when on a key is refused; the old key of a rotation gets some grace. Returns whether there is one.
    pub async fn expire_key(&self, id: &str, at: Timestamp) -> Result<bool, StoreFault> {
        let done = sqlx::query("UPDATE api_keys SET expires_at = $2 WHERE id = $1")
            .bind(id)
            .bind(at.as_micros())
            .execute(&self.pool)
            .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Revokes every key of an agent. Returns the ids of those that were not revoked before.
    pub async fn revoke_keys_of(
        &self,
        tenant: &TenantId,
        agent: &AgentId,
        now: Timestamp,
    ) -> Result<Vec<String>, StoreFault> {
        let ids = sqlx::query_scalar(
            "UPDATE api_keys SET revoked_at = $3
             WHERE tenant = $1 AND kind = 'agent' AND holder = $2 AND revoked_at IS NULL
             RETURNING id",
        )
        .bind(tenant.as_str())
        .bind(agent.as_str())
        .bind(now.as_micros())
        .fetch_all(&self.pool)
        .await?;
        Ok(ids)
    }
}
