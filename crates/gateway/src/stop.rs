//! Why a call did not go through, and what its sender may know of that.

use http::{HeaderName, HeaderValue, StatusCode, header::RETRY_AFTER};
use identity::Proven;
use policy::Policies;
use serde_json::{Map, Value};
use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
};
use vocab::{Action, Digest, RuleId, ServerName};

/// The stages of the line, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// HTTP and JSON-RPC are well-formed.
    Receive,
    /// Who calls.
    Authenticate,
    /// What is called.
    Resolve,
    /// Rate and concurrency.
    Limit,
    /// Arguments against the tool's schema.
    Validate,
    /// Detectors over the arguments.
    Screen,
    /// Policy.
    Authorize,
    /// A person's consent.
    Settle,
    /// The log's intent.
    Intend,
    /// Credentials.
    Inject,
    /// The upstream.
    Forward,
    /// Detectors over the answer.
    Release,
}

impl Stage {
    /// All of them, in the order of their names.
    pub const BY_NAME: [Self; 12] = [
        Self::Authenticate,
        Self::Authorize,
        Self::Forward,
        Self::Inject,
        Self::Intend,
        Self::Limit,
        Self::Receive,
        Self::Release,
        Self::Resolve,
        Self::Screen,
        Self::Settle,
        Self::Validate,
    ];

    /// Its place in [`Self::BY_NAME`].
    pub const fn place(self) -> usize {
        match self {
            Self::Authenticate => 0,
            Self::Authorize => 1,
            Self::Forward => 2,
            Self::Inject => 3,
            Self::Intend => 4,
            Self::Limit => 5,
            Self::Receive => 6,
            Self::Release => 7,
            Self::Resolve => 8,
            Self::Screen => 9,
            Self::Settle => 10,
            Self::Validate => 11,
        }
    }

    /// The stage's name in records, metrics and spans.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Receive => "receive",
            Self::Authenticate => "authenticate",
            Self::Resolve => "resolve",
            Self::Limit => "limit",
            Self::Validate => "validate",
            Self::Screen => "screen",
            Self::Authorize => "authorize",
            Self::Settle => "settle",
            Self::Intend => "intend",
            Self::Inject => "inject",
            Self::Forward => "forward",
            Self::Release => "release",
        }
    }

    /// The stage that comes after it; the last one stays.
    #[must_use]
    pub const fn next(self) -> Self {
        match self {
            Self::Receive => Self::Authenticate,
            Self::Authenticate => Self::Resolve,
            Self::Resolve => Self::Limit,
            Self::Limit => Self::Validate,
            Self::Validate => Self::Screen,
            Self::Screen => Self::Authorize,
            Self::Authorize => Self::Settle,
            Self::Settle => Self::Intend,
            Self::Intend => Self::Inject,
            Self::Inject => Self::Forward,
            Self::Forward | Self::Release => Self::Release,
        }
    }
}

/// What kind of no it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Our decision. Nothing was sent.
    Refused,
    /// Our failure, or the upstream's.
    Failed,
    /// It happened, but its outcome stays here.
    Withheld,
    /// Who wanted its outcome took it back, and waits for none.
    TakenBack,
}

/// A call that stopped. Boxed: stages that pass pay nothing for what a refusal says.
#[derive(Debug, Clone)]
pub struct Stop(Box<Why>);

impl Deref for Stop {
    type Target = Why;

    fn deref(&self) -> &Why {
        &self.0
    }
}

impl DerefMut for Stop {
    fn deref_mut(&mut self) -> &mut Why {
        &mut self.0
    }
}

/// Why a call stopped.
#[derive(Debug, Clone)]
pub struct Why {
    /// Where.
    pub stage: Stage,
    /// What kind of no.
    pub cause: Cause,
    /// A short, bounded word for records and metrics: `no-key`, `rate`, `denied`.
    pub reason: &'static str,
    /// HTTP status.
    pub status: StatusCode,
    /// JSON-RPC error code.
    pub code: i64,
    /// What the caller reads. Never names anything the caller may not see.
    pub message: String,
    /// `error.data`, to which the call id is added.
    pub data: Map<String, Value>,
    /// Headers of the answer.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The rules that decided.
    pub rules: Vec<RuleId>,
    /// The version of the policies they are of, where policies decided.
    pub policy: Option<Digest>,
    /// Who is refused, where it was shown who that is though nobody was let in.
    pub proven: Option<Arc<Proven>>,
    /// What only the log may know.
    pub detail: Option<String>,
    /// What the call was about, for the log, where the stop came before that was settled.
    pub about: Option<About>,
}

/// What a call would have been about.
#[derive(Debug, Clone)]
pub struct About {
    /// The server.
    pub server: ServerName,
    /// The name there.
    pub name: Arc<str>,
    /// What was asked for.
    pub action: Option<Action>,
}

impl Stop {
    /// A decision against the call. Answered as a JSON-RPC error on HTTP 200: a 4xx would make clients doubt the
    /// protocol, the session or the era instead of the call.
    pub fn refused(stage: Stage, reason: &'static str, code: i64, message: impl Into<String>) -> Self {
        Self::new(Cause::Refused, stage, reason, code, message.into())
    }

    /// A refusal for want of room. There is room as soon as something else ends, and nobody knows when: a second is a guess.
    pub fn full(reason: &'static str, message: impl Into<String>) -> Self {
        Self::refused(Stage::Limit, reason, mcp::error::REFUSED_LIMIT, message).again_in(1)
    }

    /// A failure of ours or of the upstream's.
    pub fn failed(stage: Stage, reason: &'static str, code: i64, message: impl Into<String>) -> Self {
        Self::new(Cause::Failed, stage, reason, code, message.into())
    }

    /// An outcome that stays here.
    pub fn withheld(reason: &'static str, code: i64, message: impl Into<String>) -> Self {
        Self::new(Cause::Withheld, Stage::Release, reason, code, message.into())
    }

    /// A call that its client took back. SPEC: whoever reads its stream all the same must not take it for cut, and come
    /// back for the rest.
    pub fn taken_back() -> Self {
        let why = "the client cancelled the request";
        Self::new(Cause::TakenBack, Stage::Forward, "taken-back", mcp::error::INTERNAL, why.to_owned())
    }

    /// An answer of the client's to a question that was taken back before. SPEC: it is ignored (2025-11-25,
    /// basic/utilities/cancellation): they may cross on the way, which is nobody's fault.
    pub fn answered_late() -> Self {
        let why = "the question was taken back before its answer came";
        Self::new(Cause::TakenBack, Stage::Forward, "late", mcp::error::INVALID_REQUEST, why.to_owned())
    }

    /// A panic, caught where it ended this call and no other. Its text stays in the process: it may quote the call.
    pub fn panicked(stage: Stage) -> Self {
        let why = "the gateway failed; the log has the call";
        match stage {
            Stage::Release => Self::withheld("panic", mcp::error::INTERNAL, why),
            _ => Self::failed(stage, "panic", mcp::error::INTERNAL, why),
        }
    }

    fn new(cause: Cause, stage: Stage, reason: &'static str, code: i64, message: String) -> Self {
        Self(Box::new(Why {
            stage,
            cause,
            reason,
            status: StatusCode::OK,
            code,
            message,
            data: Map::new(),
            headers: Vec::new(),
            rules: Vec::new(),
            policy: None,
            proven: None,
            detail: None,
            about: None,
        }))
    }

    /// With another HTTP status than 200.
    #[must_use]
    pub fn status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// With the seconds after which it may be tried again, for clients and for whatever reads HTTP.
    #[must_use]
    pub fn again_in(self, seconds: u64) -> Self {
        self.data("retryAfter", seconds).header(RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// With one more member of `error.data`.
    #[must_use]
    pub fn data(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.data.insert(key.to_owned(), value.into());
        self
    }

    /// With a header on the answer.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Decided by these policies, and by which of their rules.
    #[must_use]
    pub fn decided(mut self, policies: &Policies, rules: Vec<RuleId>) -> Self {
        self.rules = rules;
        self.policy = Some(*policies.version());
        self
    }

    /// Decided by what decided another stop, which is told in other words.
    #[must_use]
    pub fn decided_as(mut self, other: &Self) -> Self {
        self.rules.clone_from(&other.rules);
        self.policy = other.policy;
        self
    }

    /// With who is refused, if that was shown.
    #[must_use]
    pub fn proven(mut self, proven: Option<Arc<Proven>>) -> Self {
        self.proven = proven;
        self
    }

    /// As the stop of another stage: what is used in two places is told where it happened.
    #[must_use]
    pub fn at(mut self, stage: Stage) -> Self {
        self.stage = stage;
        self
    }

    /// With what the call was about.
    #[must_use]
    pub fn about(mut self, about: Option<About>) -> Self {
        self.about = about;
        self
    }

    /// With what only the log may know.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_stands_once_in_the_order_of_names() {
        for (place, stage) in Stage::BY_NAME.into_iter().enumerate() {
            assert_eq!(stage.place(), place, "{}", stage.as_str());
        }
        assert!(Stage::BY_NAME.is_sorted_by(|one, next| one.as_str() < next.as_str()));
        let mut stage = Stage::Receive;
        while stage.next() != stage {
            assert!(Stage::BY_NAME.contains(&stage), "{}", stage.as_str());
            stage = stage.next();
        }
        assert!(Stage::BY_NAME.contains(&stage), "{}", stage.as_str());
    }
}
