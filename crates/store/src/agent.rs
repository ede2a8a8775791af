//! What was decided about agents at run time. *Disabled* here beats the configuration.

use crate::{Store, StoreFault};
use sqlx::Row;
use vocab::{AgentId, TenantId, Timestamp};

/// An agent that was switched off, or on again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentRow {
    /// Whose it is.
    pub tenant: TenantId,
    /// Its name.
    pub agent: AgentId,
    /// Since when it is off; `None` if it was switched on again.
    pub disabled: Option<Timestamp>,
    /// Why it was switched off.
    pub reason: Option<String>,
}

impl Store {
    /// Switches an agent off. An agent that is off already keeps its time and reason.
    pub async fn disable_agent(
        &self,
        tenant: &TenantId,
        agent: &AgentId,
        reason: &str,
        now: Timestamp,
    ) -> Result<(), StoreFault> {
        sqlx::query(
            "INSERT INTO agents (tenant, name, disabled_at, reason) VALUES ($1, $2, $3, $4)
             ON CONFLICT (tenant, name) DO UPDATE SET disabled_at = excluded.disabled_at, reason = excluded.reason
             WHERE agents.disabled_at IS NULL",
        )
        .bind(tenant.as_str())
        .bind(agent.as_str())
        .bind(now.as_micros())
        .bind(reason)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Switches an agent on again. Returns whether it was off.
    pub async fn enable_agent(&self, tenant: &TenantId, agent: &AgentId) -> Result<bool, StoreFault> {
        let done = sqlx::query(
            "UPDATE agents SET disabled_at = NULL, reason = NULL
             WHERE tenant = $1 AND name = $2 AND disabled_at IS NOT NULL",
        )
        .bind(tenant.as_str())
        .bind(agent.as_str())
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Every agent that something was decided about, by name.
    pub async fn agents(&self) -> Result<Vec<AgentRow>, StoreFault> {
        let damaged = |column| StoreFault::Damaged { table: "agents", column };
        let rows = sqlx::query("SELECT * FROM agents ORDER BY tenant, name").fetch_all(&self.pool).await?;
        let mut agents = Vec::with_capacity(rows.len());
        for row in rows {
            agents.push(AgentRow {
                tenant: row.try_get::<String, _>("tenant")?.parse().map_err(|_| damaged("tenant"))?,
                agent: row.try_get::<String, _>("name")?.parse().map_err(|_| damaged("name"))?,
                disabled: row.try_get::<Option<i64>, _>("disabled_at")?.map(Timestamp::from_micros),
                reason: row.try_get("reason")?,
            });
        }
        Ok(agents)
    }
}
