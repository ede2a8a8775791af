//! Between the line and the log: appends records, and tells observers what was recorded.
//!
//! Never decides, never waits unless asked to.

use crate::{clock::Clock, stop::Stage, trail::Facts, unheard::Unheard};
use audit::{CallRecord, Leaf, Log, LogFault, Outcome, Pending, Salt, SystemRecord};
use crossbeam_queue::SegQueue;
use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Closed calls that wait for an observer; of more than this, the rest is counted and let go. The log has them all.
const OBSERVED: usize = 16_384;

/// A closed call, for metrics, spans and the log line.
pub struct Closed {
    /// What is known of it.
    pub facts: Box<Facts>,
    /// What became of it.
    pub outcome: Outcome,
}

/// The log, as the line sees it.
pub struct Journal {
    log: Arc<Log>,
    clock: Arc<dyn Clock>,
    closed: SegQueue<Closed>,
    unobserved: AtomicU64,
    lost: AtomicU64,
    unheard: Unheard,
}

impl Journal {
    /// A journal over `log`.
    pub fn new(log: Arc<Log>, clock: Arc<dyn Clock>) -> Self {
        Self {
            log,
            clock,
            closed: SegQueue::new(),
            unobserved: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            unheard: Unheard::default(),
        }
    }

    /// The clock the trails run on.
    pub fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// The log itself.
    pub const fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// What the commitments of a call are salted with.
    pub fn salt(&self, facts: &Facts) -> Result<Salt, LogFault> {
        self.log.salt(&facts.call, facts.at)
    }

    /// Queues a leaf and hands back what to wait on.
    pub fn append(&self, leaf: Leaf) -> Result<Pending, LogFault> {
        self.log.append(leaf)
    }

    /// Records the end of a call. Costs no wait and no system call.
    pub fn close(&self, record: CallRecord, closed: Closed) {
        let stored = if record.agent.is_some() {
            self.log.append_unwatched(Leaf::Call(record))
        } else {
            self.log.append_system(unauthenticated(record))
        };
        if let Err(fault) = stored {
            // The intent is on disk; recovery closes it as unknown. Here is where that becomes visible at once.
            self.lost.fetch_add(1, Ordering::Relaxed);
            tracing::error!(call = %closed.facts.call, %fault, "a record could not be written");
        }
        if self.closed.len() < OBSERVED {
            self.closed.push(closed);
        } else {
            self.unobserved.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Records something that happened to the gateway itself. No flood of requests hides it.
    pub fn system(&self, event: &'static str, detail: Option<String>) {
        self.event(SystemRecord { detail, ..self.system_record(Cow::Borrowed(event)) });
    }

    /// A record of something that happens now.
    pub(crate) fn system_record(&self, event: Cow<'static, str>) -> SystemRecord {
        SystemRecord::new(event, self.log.tenant().clone(), self.clock.now())
    }

    /// Appends a record of what happened to the gateway itself.
    pub(crate) fn event(&self, record: SystemRecord) {
        let event = record.event.clone();
        if let Err(fault) = self.log.append_event(record) {
            self.lost.fetch_add(1, Ordering::Relaxed);
            tracing::error!(%event, %fault, "a record could not be written");
        }
    }

    /// What was asked of nobody since that was recorded last.
    pub(crate) const fn questions(&self) -> &Unheard {
        &self.unheard
    }

    /// The next closed call nobody has looked at yet.
    pub fn next_closed(&self) -> Option<Closed> {
        self.closed.pop()
    }

    /// Closed calls that no observer took in time, and records that could not be written.
    pub fn losses(&self) -> (u64, u64) {
        (self.unobserved.load(Ordering::Relaxed), self.lost.load(Ordering::Relaxed))
    }
}

/// A request without a principal belongs to no tenant's tree. One that could not be read was never asked for one.
fn unauthenticated(record: CallRecord) -> SystemRecord {
    let event = match &record.outcome {
        Outcome::Refused { stage, .. } | Outcome::Faulted { stage, .. } if *stage == Stage::Receive.as_str() => {
            "unread"
        }
        _ => "unauthenticated",
    };
    SystemRecord {
        call: Some(record.call),
        detail: record.error,
        http_status: record.http_status,
        method: record.method.map(Cow::into_owned),
        outcome: Some(record.outcome),
        peer: record.peer.map(|peer| peer.to_string()),
        ..SystemRecord::new(Cow::Borrowed(event), record.tenant, record.at)
    }
}

#[cfg(test)]
mod tests {
    use super::{Closed, Journal, OBSERVED};
    use crate::{clock::SystemClock, trail::Facts};
    use audit::{CallRecord, Log, Options, Outcome, Signer};
    use std::{net::IpAddr, sync::Arc};
    use vault::{KeySource, Vault};
    use vocab::{AgentId, CallId, TenantId, Timestamp};

    #[tokio::test]
    async fn what_nobody_observes_is_counted_and_recorded_all_the_same() {
        let folder = tempfile::tempdir().expect("a folder");
        let (tenant, now) = (TenantId::default_tenant(), Timestamp::from_seconds(0));
        let key = KeySource::File(folder.path().join("master.key")).load(folder.path()).expect("a master key");
        let vault = Vault::open(folder.path(), key, tenant.clone(), now).expect("a vault");
        let signer = vault.audit_signer().expect("a signer");
        let name = "durward/default".to_owned();
        let options = Options::new(folder.path().join("log"), name.clone(), tenant.clone(), now);
        let log = Log::open(options, Signer { name, public: signer.public, sign: signer.sign }).expect("a log");
        let journal = Journal::new(Arc::new(log), Arc::new(SystemClock::new()));
        let (call, agent) = (CallId::from_bytes([7; 16]), AgentId::new("ci").expect("a name"));
        for _ in 0..OBSERVED + 3 {
            let record = CallRecord {
                agent: Some(agent.clone()),
                ..CallRecord::new(call, tenant.clone(), now, Outcome::Answered)
            };
            let facts = Box::new(Facts::new(call, tenant.clone(), IpAddr::from([127, 0, 0, 1])));
            journal.close(record, Closed { facts, outcome: Outcome::Answered });
        }
        assert_eq!(journal.losses(), (3, 0));
        assert_eq!(std::iter::from_fn(|| journal.next_closed()).count(), OBSERVED);
        journal.log().flush().await.expect("the log is written");
    }
}
