//! What lies between a client's pipes and a gateway: everything that both directions need.

use super::{
    credential::Credential, errand::Errands, mirror::Mirror, question::Questions, session::Session, speak::Voice,
    tell::Tell,
};
use egress::{Egress, Endpoint};
use mcp::Limits;
use tokio::sync::Semaphore;

/// Requests that are with the gateway at once. More wait for their turn.
const AT_ONCE: usize = 256;
/// What a message may be. The gateway has its own limits; these keep this program's memory.
pub(super) const LIMITS: Limits = Limits { body: 64 << 20, depth: Limits::DEEPEST, batch: 4096 };

/// The bridge.
pub(super) struct Bridge {
    pub(super) egress: Egress,
    pub(super) endpoint: Endpoint,
    pub(super) credential: Credential,
    pub(super) tell: Tell,
    pub(super) voice: Voice,
    pub(super) errands: Errands,
    pub(super) questions: Questions,
    pub(super) session: Session,
    pub(super) mirror: Mirror,
    pub(super) turns: Semaphore,
}

impl Bridge {
    pub(super) fn new(egress: Egress, endpoint: Endpoint, credential: Credential, tell: Tell, voice: Voice) -> Self {
        Self {
            egress,
            endpoint,
            credential,
            tell,
            voice,
            errands: Errands::default(),
            questions: Questions::default(),
            session: Session::default(),
            mirror: Mirror::default(),
            turns: Semaphore::new(AT_ONCE),
        }
    }
}
