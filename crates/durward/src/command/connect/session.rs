//! The session of a client that begins with `initialize`: what the gateway gave, and what it takes to begin again.

use super::gap;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use mcp::{
    Message, Revision,
    header::{PROTOCOL_VERSION, SESSION_ID},
};
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::sync::watch;

/// Subscriptions that are made again in a new session.
const SUBSCRIPTIONS: usize = 1024;

/// The session, if there is one.
pub(super) struct Session {
    state: Mutex<Option<State>>,
    /// The session whose client has said that it is ready; 0 before there is one.
    pub(super) ready: watch::Sender<u64>,
    /// One introduction at a time.
    pub(super) introducing: tokio::sync::Mutex<()>,
}

struct State {
    /// Which session this is, counted from 1.
    number: u64,
    /// What the gateway calls it; nothing where it has no sessions.
    handle: Option<HeaderValue>,
    /// The agreed revision, as written.
    revision: String,
    past: Past,
}

/// What the client said that a new session must hear, each text as it was sent; and what the client must hear of one.
#[derive(Clone)]
pub(super) struct Past {
    pub(super) hello: Message,
    pub(super) ready: Option<Bytes>,
    pub(super) level: Option<Bytes>,
    pub(super) subscriptions: HashMap<String, Bytes>,
    /// That the lists changed whose changes it was promised to hear of.
    pub(super) changed: Vec<Bytes>,
}

/// An answer to `initialize` that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unfit {
    /// No revision in it.
    #[error("the gateway's answer to `initialize` names no revision")]
    NoRevision,
    /// Another one than the client was told.
    #[error("the gateway now speaks {now} with this client, and spoke {then}; start the client again")]
    Changed { then: String, now: String },
}

impl Default for Session {
    fn default() -> Self {
        Self { state: Mutex::default(), ready: watch::Sender::new(0), introducing: tokio::sync::Mutex::default() }
    }
}

impl Session {
    /// The client introduced itself with `hello`, and the gateway answered.
    pub(super) fn begin(&self, hello: &Message, answer: &Message, handle: Option<HeaderValue>) {
        // An error begins nothing.
        let Some(revision) = revision_of(answer) else { return };
        let mut state = self.lock();
        let number = state.as_ref().map_or(0, |state| state.number) + 1;
        let changed = gap::of_session(answer);
        let past = Past { hello: hello.clone(), ready: None, level: None, subscriptions: HashMap::new(), changed };
        *state = Some(State { number, handle, revision, past });
    }

    /// The client was introduced again after session `lost`. INVARIANT: called by whoever holds `introducing`.
    pub(super) fn begin_again(&self, answer: &Message, handle: Option<HeaderValue>) -> Result<(), Unfit> {
        let now = revision_of(answer).ok_or(Unfit::NoRevision)?;
        let mut state = self.lock();
        let Some(state) = state.as_mut() else { return Ok(()) };
        if state.revision != now {
            return Err(Unfit::Changed { then: state.revision.clone(), now });
        }
        state.number += 1;
        state.handle = handle;
        Ok(())
    }

    /// Which session it is; `None` before the first, and where the gateway keeps none.
    pub(super) fn number(&self) -> Option<u64> {
        self.lock().as_ref().filter(|state| state.handle.is_some()).map(|state| state.number)
    }

    /// Whether a client introduced itself.
    pub(super) fn is_begun(&self) -> bool {
        self.lock().is_some()
    }

    /// The headers of every message of the session.
    pub(super) fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Some(state) = self.lock().as_ref() {
            if let Some(handle) = &state.handle {
                headers.insert(SESSION_ID, handle.clone());
            }
            // What is newer than all we know has the header as well.
            let is_named = Revision::parse(&state.revision).is_none_or(Revision::has_version_header);
            if let Some(version) = HeaderValue::from_str(&state.revision).ok().filter(|_| is_named) {
                headers.insert(PROTOCOL_VERSION, version);
            }
        }
        headers
    }

    /// Remembers what a new session must hear.
    pub(super) fn remember(&self, message: &Message) {
        let mut state = self.lock();
        let Some(past) = state.as_mut().map(|state| &mut state.past) else { return };
        match message.method() {
            "notifications/initialized" => past.ready = Some(message.bytes().clone()),
            "logging/setLevel" => past.level = Some(message.bytes().clone()),
            "resources/subscribe" => {
                let Some(uri) = message.subject() else { return };
                if past.subscriptions.len() < SUBSCRIPTIONS || past.subscriptions.contains_key(uri.as_ref()) {
                    past.subscriptions.insert(uri.into_owned(), message.bytes().clone());
                }
            }
            "resources/unsubscribe" => {
                if let Some(uri) = message.subject() {
                    past.subscriptions.remove(uri.as_ref());
                }
            }
            _ => {}
        }
    }

    /// What a new session must hear, and its client.
    pub(super) fn past(&self) -> Option<Past> {
        self.lock().as_ref().map(|state| state.past.clone())
    }

    /// The gateway heard that the client is ready.
    pub(super) fn is_ready(&self) {
        let number = self.lock().as_ref().map_or(0, |state| state.number);
        self.ready.send_replace(number);
    }

    fn lock(&self) -> MutexGuard<'_, Option<State>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn revision_of(answer: &Message) -> Option<String> {
    Some(answer.outcome_member(&["protocolVersion"])?.text()?.into_owned())
}
