//! Calls of modern clients whose server waits for an answer of theirs. What the client is given to come back with is
//! sealed, names the one call it is good for, and is good once.
//!
//! SECURITY: the client holds a ticket, never the call. A ticket opens for nobody but the principal, the server and the
//! request it was made for, in this process, for as long as [`LIFE`].

use super::{Link, course::Course};
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use identity::Principal;
use policy::Permit;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use vocab::{Digest, ServerName};

/// How long a server is kept waiting for its answer.
pub(crate) const LIFE: Duration = Duration::from_mins(5);
/// Calls that wait, in all and of one principal.
const MOST: (usize, usize) = (256, 16);
/// What a ticket is sealed for.
const LABEL: &[u8] = b"durward/parked/1";

/// A number that nobody can guess.
pub(crate) type Number = [u8; 16];

/// A call that waits.
pub(crate) struct Resting {
    pub(super) course: Course,
    /// The id under which the server asked, as it wrote it.
    pub(super) question: Box<str>,
    /// What it asked.
    pub(super) method: Box<str>,
    /// The permit for asking: the answer travels back under it.
    pub(super) permit: Permit,
    /// Whose call it is.
    pub(super) holder: Principal,
    /// Until when, in ticks.
    pub(super) until: u64,
}

impl Resting {
    /// Whose call it is.
    pub(crate) const fn holder(&self) -> &Principal {
        &self.holder
    }

    /// Who waits.
    pub(crate) fn server(&self) -> &ServerName {
        &self.course.server.name
    }

    /// The target as it was when the call was made.
    pub(crate) fn fingerprint(&self) -> u64 {
        self.course.server.fingerprint
    }
}

/// What a ticket says.
pub(super) struct Ticket {
    pub(super) number: Number,
    pub(super) until: u64,
    /// Of principal, server and request.
    pub(super) bound: Digest,
}

/// Why a ticket is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum TicketFault {
    #[error("`requestState` is not one of this gateway's")]
    Broken,
    #[error("`requestState` belongs to another node, or the gateway was started again since: make the call anew")]
    Foreign,
    #[error("`requestState` is for another call: send the same request, as the same caller")]
    Misplaced,
    #[error("`requestState` has expired: make the call anew")]
    Expired,
    #[error("`requestState` was used before, or its call has ended: make the call anew")]
    Used,
    #[error("`inputResponses` has no answer to what was asked")]
    Unanswered,
}

/// All of them.
pub(crate) struct Parked {
    /// Tells this process from others. Not secret.
    node: Number,
    /// None where there were no random bytes: then nothing can be parked.
    key: Option<RandomizedNonceKey>,
    calls: Mutex<HashMap<Number, Box<Resting>>>,
}

impl Parked {
    /// None yet, under a key of this process.
    pub(crate) fn new() -> Self {
        let (mut key, mut node) = ([0; 32], [0; 16]);
        let random = aws_lc_rs::rand::fill(&mut key).and_then(|()| aws_lc_rs::rand::fill(&mut node));
        let key = random.ok().and_then(|()| RandomizedNonceKey::new(&AES_256_GCM, &key).ok());
        Self { node, key, calls: Mutex::default() }
    }

    /// A number for a call that is to wait.
    pub(super) fn number() -> Option<Number> {
        let mut number = [0; 16];
        aws_lc_rs::rand::fill(&mut number).ok().map(|()| number)
    }

    /// A ticket as the client is given it.
    pub(super) fn seal(&self, ticket: &Ticket) -> Option<String> {
        let mut text = Vec::with_capacity(128);
        text.extend_from_slice(&ticket.number);
        text.extend_from_slice(&ticket.until.to_be_bytes());
        text.extend_from_slice(ticket.bound.as_bytes());
        let nonce = self.key.as_ref()?.seal_in_place_append_tag(Aad::from(self.label()), &mut text).ok()?;
        Some(URL_SAFE_NO_PAD.encode([&self.node, nonce.as_ref().as_slice(), &text].concat()))
    }

    /// What a ticket says.
    pub(super) fn open(&self, sealed: &str) -> Result<Ticket, TicketFault> {
        let sealed = URL_SAFE_NO_PAD.decode(sealed).map_err(|_| TicketFault::Broken)?;
        let (node, sealed) = sealed.split_first_chunk::<16>().ok_or(TicketFault::Broken)?;
        if *node != self.node {
            return Err(TicketFault::Foreign);
        }
        let (nonce, text) = sealed.split_at_checked(NONCE_LEN).ok_or(TicketFault::Broken)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| TicketFault::Broken)?;
        let mut text = text.to_vec();
        let key = self.key.as_ref().ok_or(TicketFault::Broken)?;
        let text = key.open_in_place(nonce, Aad::from(self.label()), &mut text).map_err(|_| TicketFault::Broken)?;
        let (number, rest) = text.split_first_chunk::<16>().ok_or(TicketFault::Broken)?;
        let (until, bound) = rest.split_first_chunk::<8>().ok_or(TicketFault::Broken)?;
        let bound = bound.try_into().map_err(|_| TicketFault::Broken)?;
        Ok(Ticket { number: *number, until: u64::from_be_bytes(*until), bound: Digest::from_bytes(bound) })
    }

    fn label(&self) -> Vec<u8> {
        [LABEL, &self.node].concat()
    }

    /// Lets a call wait. Where there is no room it is handed back.
    pub(super) fn park(&self, number: Number, resting: Box<Resting>) -> Result<(), Box<Resting>> {
        let mut calls = lock(&self.calls);
        let own = calls.values().filter(|kept| kept.holder.id() == resting.holder.id()).count();
        if own >= MOST.1 || calls.len() >= MOST.0 {
            return Err(resting);
        }
        calls.insert(number, resting);
        Ok(())
    }

    /// The session of the call that waits under this number, and what its server asked.
    pub(super) fn waiting(&self, number: &Number) -> Option<(Arc<Link>, Box<str>)> {
        lock(&self.calls).get(number).map(|resting| (Arc::clone(&resting.course.link), resting.method.clone()))
    }

    /// The call that waits under this number, once.
    pub(super) fn take(&self, number: &Number) -> Option<Box<Resting>> {
        lock(&self.calls).remove(number)
    }

    /// How many wait.
    pub(crate) fn count(&self) -> usize {
        lock(&self.calls).len()
    }

    /// Gives up those that waited too long, and those that `keep` does not hold for. Their servers are told.
    pub(crate) fn sweep(&self, now: u64, keep: impl Fn(&Resting) -> bool) {
        // Dropped behind the lock: letting go of a call sends something.
        let over: Vec<_> = lock(&self.calls).extract_if(|_, resting| resting.until <= now || !keep(resting)).collect();
        drop(over);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
