//! What a leaf says: one intent, one closed call, one management action or one event of the gateway itself.
//!
//! The text of a leaf is canonical JSON (RFC 8785) by construction: fields are declared in sorted order, numbers are
//! integers below 2^53, and absent things are left out. Never holds the text of arguments or results.

mod text;

use serde::{Deserialize, Serialize, Serializer};
use std::{borrow::Cow, net::IpAddr, sync::Arc, time::Duration};
use vocab::{
    Action, AgentId, CallId, Class, Digest, Finding, IssuerName, RuleId, SecretName, ServerName, TenantId, Timestamp,
    UserId,
};

/// The longest leaf, in bytes: entry bundles store lengths in 16 bits.
pub(crate) const LONGEST: usize = 65_535;

/// What ends a leaf: the version of its form.
const END: &[u8] = b",\"v\":1}";

/// SPEC: RFC 8785 numbers are doubles; beyond 2^53 − 1 an integer would not be one number for every reader.
const LARGEST: u64 = (1 << 53) - 1;

/// Room for what the writer puts before a body: `{"index":9007199254740991,`.
const PREFIX: usize = 32;

/// What is left of texts and lists, step by step, until a leaf fits.
const CUTS: [Cut; 3] = [Cut { text: 4096, items: 64 }, Cut { text: 512, items: 24 }, Cut { text: 64, items: 8 }];

/// The most stages of a record that was cut. No line has as many.
const STAGES: usize = 64;

/// One record, before it has a place in the log.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "a leaf is made and encoded at once, never stored")]
pub enum Leaf {
    /// A call is about to leave.
    Intent(Intent),
    /// A call is over, whatever became of it.
    Call(CallRecord),
    /// Somebody managed the gateway.
    Admin(AdminRecord),
    /// Something happened to the gateway itself.
    System(SystemRecord),
}

/// A call that may change state is about to leave. On disk before the call does.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Intent {
    /// What is asked for.
    pub action: Option<Action>,
    /// Who asks.
    pub agent: Option<AgentId>,
    /// What the arguments were, as a commitment.
    pub arguments: Option<Commitment>,
    /// When.
    pub at: Timestamp,
    /// The call.
    pub call: CallId,
    /// How dangerous the operator says it is.
    pub class: Option<Class>,
    /// Who vouches for agent and user: the issuer of the token.
    pub issuer: Option<IssuerName>,
    /// The protocol method.
    pub method: Option<String>,
    /// The call that caused this one.
    pub parent: Option<CallId>,
    /// The version of the policy that allowed it.
    pub policy: Option<Digest>,
    /// The rules that allowed it.
    #[serde(default)]
    pub rules: Arc<[RuleId]>,
    /// The server it goes to.
    pub server: Option<ServerName>,
    /// The tool, prompt, resource or method, as the server knows it.
    pub target: Option<String>,
    /// Whose call it is.
    pub tenant: TenantId,
    /// The trace id of the caller, if it brought one.
    pub trace: Option<String>,
    /// The person the agent acts for.
    pub user: Option<UserId>,
}

/// One closed call. Every call leaves exactly one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallRecord {
    /// What was asked for.
    pub action: Option<Action>,
    /// Who asked; nobody if authentication failed.
    pub agent: Option<AgentId>,
    /// What the arguments were, as a commitment.
    pub arguments: Option<Commitment>,
    /// When the call arrived.
    pub at: Timestamp,
    /// The protocol era that the server was spoken to in, where it is not the client's.
    pub bridge: Option<Cow<'static, str>>,
    /// The call.
    pub call: CallId,
    /// How dangerous the operator says the target is.
    pub class: Option<Class>,
    /// The secret that was put into it, by name.
    pub credential: Option<SecretName>,
    /// Whether texts or lists were cut to fit. Set by the log.
    pub cut: bool,
    /// How long it took, in microseconds.
    pub duration_us: u64,
    /// The protocol revision spoken.
    pub era: Option<Cow<'static, str>>,
    /// What went wrong, for the operator.
    pub error: Option<String>,
    /// What the detectors found.
    pub findings: Vec<Finding>,
    /// The HTTP status the client got.
    pub http_status: Option<u16>,
    /// How the caller proved who it is: `key:…`, `jwt:…`.
    pub identity: Option<Cow<'static, str>>,
    /// The leaf of the intent this call had, if it had one: what [`crate::Pending::durable`] gave.
    pub intent: Option<u64>,
    /// Who vouches for agent and user: the issuer of the token. Nobody does for a key.
    pub issuer: Option<IssuerName>,
    /// The protocol method.
    pub method: Option<Cow<'static, str>>,
    /// What became of it.
    pub outcome: Outcome,
    /// The call that caused this one.
    pub parent: Option<CallId>,
    /// The network peer.
    pub peer: Option<IpAddr>,
    /// The version of the policy that judged it.
    pub policy: Option<Digest>,
    /// What the result was, as a commitment.
    pub result: Option<Commitment>,
    /// The rules that decided.
    pub rules: Arc<[RuleId]>,
    /// The server.
    pub server: Option<ServerName>,
    /// A digest of the session's handle, never the handle.
    pub session: Option<Digest>,
    /// How long each stage of the line took, in microseconds. In the order of their names they are written as they are.
    pub stages: Vec<Stage>,
    /// The tool, prompt, resource or method, as the server knows it.
    pub target: Option<String>,
    /// Whose call it is.
    pub tenant: TenantId,
    /// The trace id of the caller, if it brought one.
    pub trace: Option<String>,
    /// The person the agent acts for.
    pub user: Option<UserId>,
}

impl CallRecord {
    /// A record that knows only which call it closes and how; the rest is filled in.
    pub fn new(call: CallId, tenant: TenantId, at: Timestamp, outcome: Outcome) -> Self {
        Self {
            action: None,
            agent: None,
            arguments: None,
            at,
            bridge: None,
            call,
            class: None,
            credential: None,
            cut: false,
            duration_us: 0,
            era: None,
            error: None,
            findings: Vec::new(),
            http_status: None,
            identity: None,
            intent: None,
            issuer: None,
            method: None,
            outcome,
            parent: None,
            peer: None,
            policy: None,
            result: None,
            rules: Arc::default(),
            server: None,
            session: None,
            stages: Vec::new(),
            target: None,
            tenant,
            trace: None,
            user: None,
        }
    }

    /// What closes the intent at leaf `index` that nothing closed: nobody knows whether the call arrived.
    pub(crate) fn unknown(intent: Intent, index: u64, at: Timestamp) -> Self {
        Self {
            action: intent.action,
            agent: intent.agent,
            arguments: intent.arguments,
            class: intent.class,
            intent: Some(index),
            issuer: intent.issuer,
            method: intent.method.map(Cow::Owned),
            parent: intent.parent,
            policy: intent.policy,
            rules: intent.rules,
            server: intent.server,
            target: intent.target,
            trace: intent.trace,
            user: intent.user,
            ..Self::new(intent.call, intent.tenant, at, Outcome::Unknown)
        }
    }
}

/// What became of a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "is", rename_all = "lowercase")]
pub enum Outcome {
    /// The server answered and the answer was released.
    Answered,
    /// The server answered an error.
    Failed,
    /// We said no before anything left.
    Refused {
        /// Why: a short code.
        reason: Cow<'static, str>,
        /// Which stage.
        stage: Cow<'static, str>,
    },
    /// It happened, and the answer was held back.
    Withheld {
        /// Why: a short code.
        reason: Cow<'static, str>,
        /// Which stage.
        stage: Cow<'static, str>,
    },
    /// We failed.
    Faulted {
        /// Why: a short code.
        reason: Cow<'static, str>,
        /// Which stage.
        stage: Cow<'static, str>,
    },
    /// The call ended unclosed: a panic, or a client that went away.
    Abandoned,
    /// The gateway stopped between intent and answer.
    Unknown,
}

/// How long one stage of the line took. What the last one said is the outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stage {
    /// The stage.
    pub name: &'static str,
    /// Microseconds.
    pub us: u32,
}

/// That a text was this text, without saying what it was. See [`crate::Salts`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Commitment {
    /// The length of the text.
    pub bytes: u64,
    /// SHA-256 over salt, length and text. The salt is not in the log.
    pub digest: Digest,
}

/// Somebody managed the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AdminRecord {
    /// What was done: `agent.disable`.
    pub action: Cow<'static, str>,
    /// Who did it.
    pub actor: String,
    /// When.
    pub at: Timestamp,
    /// The id of the action, as the answer carries it.
    pub call: CallId,
    /// What changed, without any secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What became of it.
    pub outcome: Outcome,
    /// The network peer, unless it came over the local socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// What it was done to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Whose gateway.
    pub tenant: TenantId,
}

/// Something happened to the gateway itself, or a request came without a principal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SystemRecord {
    /// When.
    pub at: Timestamp,
    /// The request, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call: Option<CallId>,
    /// How many like it this record stands for, if more than itself.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "safe_integer_option")]
    pub count: Option<u64>,
    /// What happened, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What happened: `started`, `unauthenticated`, `surplus`.
    pub event: Cow<'static, str>,
    /// The HTTP status the client got.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_status: Option<u16>,
    /// The protocol method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// What became of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// The network peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// Whose gateway.
    pub tenant: TenantId,
}

impl SystemRecord {
    /// An event that says only its name; the rest is filled in.
    pub const fn new(event: Cow<'static, str>, tenant: TenantId, at: Timestamp) -> Self {
        Self {
            at,
            call: None,
            count: None,
            detail: None,
            event,
            http_status: None,
            method: None,
            outcome: None,
            peer: None,
            tenant,
        }
    }
}

/// What a leaf does to the set of intents that nothing has closed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    Opens(CallId),
    Closes(CallId),
    None,
}

impl Leaf {
    /// The leaf's text from its kind on, at most [`LONGEST`] bytes with the index that the writer puts first.
    pub(crate) fn encode(&mut self) -> Result<Vec<u8>, serde_json::Error> {
        let mut body = self.write()?;
        for cut in CUTS {
            if body.len() + PREFIX <= LONGEST {
                break;
            }
            self.shorten(cut);
            body = self.write()?;
        }
        Ok(body)
    }

    /// What the leaf does to the open intents.
    pub(crate) const fn effect(&self) -> Effect {
        match self {
            Self::Intent(intent) => Effect::Opens(intent.call),
            Self::Call(call) => Effect::Closes(call.call),
            Self::Admin(_) | Self::System(_) => Effect::None,
        }
    }

    fn write(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut body = Vec::with_capacity(1024);
        match self {
            Self::Intent(record) => {
                body.extend_from_slice(b"\"kind\":\"intent\",\"record\":");
                record.write(&mut body);
                body.extend_from_slice(END);
            }
            Self::Call(record) => {
                body.extend_from_slice(b"\"kind\":\"call\",\"record\":");
                record.write(&mut body);
                body.extend_from_slice(END);
            }
            Self::Admin(record) => write(&mut body, b"\"kind\":\"admin\",\"record\":", record)?,
            Self::System(record) => write(&mut body, b"\"kind\":\"system\",\"record\":", record)?,
        }
        Ok(body)
    }

    fn shorten(&mut self, to: Cut) {
        match self {
            Self::Intent(record) => {
                for text in [&mut record.method, &mut record.target, &mut record.trace] {
                    to.optional(text);
                }
                to.rules(&mut record.rules);
            }
            Self::Call(record) => {
                record.cut = true;
                for text in [&mut record.error, &mut record.target, &mut record.trace] {
                    to.optional(text);
                }
                // Who called is always whole.
                if let Some(method) = &mut record.method {
                    to.shared(method);
                }
                for finding in &mut record.findings {
                    for text in [&mut finding.detector, &mut finding.kind, &mut finding.pointer] {
                        if text.len() > to.text {
                            *text = to.of(text).into();
                        }
                    }
                }
                to.outcome(&mut record.outcome);
                to.rules(&mut record.rules);
                to.ends(&mut record.findings);
                // Each stage once, as few as they are: where a call ended is told by them.
                record.stages.truncate(STAGES);
            }
            Self::Admin(record) => {
                to.shared(&mut record.action);
                to.string(&mut record.actor);
                for text in [&mut record.detail, &mut record.peer, &mut record.target] {
                    to.optional(text);
                }
                to.outcome(&mut record.outcome);
            }
            Self::System(record) => {
                to.shared(&mut record.event);
                for text in [&mut record.detail, &mut record.method, &mut record.peer] {
                    to.optional(text);
                }
                if let Some(outcome) = &mut record.outcome {
                    to.outcome(outcome);
                }
            }
        }
    }
}

/// Writes a leaf: the index, which only the writer knows, and a body.
pub(crate) fn write_leaf(to: &mut Vec<u8>, index: u64, body: &[u8]) {
    to.extend_from_slice(b"{\"index\":");
    text::integer(to, index);
    to.push(b',');
    to.extend_from_slice(body);
}

/// What the log itself must know of a leaf that it reads back.
#[derive(Debug, Deserialize)]
pub(crate) struct Outline {
    pub(crate) index: u64,
    pub(crate) kind: String,
    pub(crate) record: OutlineRecord,
    pub(crate) v: u64,
}

/// The part of a record that the log reads back.
#[derive(Debug, Deserialize)]
pub(crate) struct OutlineRecord {
    /// When what it records began, in microseconds.
    pub(crate) at: i64,
    pub(crate) call: Option<CallId>,
    /// And how long it took.
    #[serde(default)]
    pub(crate) duration_us: u64,
    pub(crate) intent: Option<u64>,
    pub(crate) tenant: TenantId,
}

impl Outline {
    pub(crate) fn read(leaf: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(leaf)
    }

    /// When it was written, as far as it says: what it records had then ended.
    pub(crate) fn written(&self) -> Timestamp {
        Timestamp::from_micros(self.record.at).plus(Duration::from_micros(self.record.duration_us))
    }

    pub(crate) fn effect(&self) -> Effect {
        match (self.kind.as_str(), self.record.call) {
            ("intent", Some(call)) => Effect::Opens(call),
            ("call", Some(call)) => Effect::Closes(call),
            _ => Effect::None,
        }
    }
}

/// The intent that a leaf holds.
pub(crate) fn read_intent(leaf: &[u8]) -> Result<Intent, serde_json::Error> {
    #[derive(Deserialize)]
    struct Whole {
        record: Intent,
    }
    serde_json::from_slice::<Whole>(leaf).map(|whole| whole.record)
}

fn write(body: &mut Vec<u8>, head: &[u8], record: &impl Serialize) -> Result<(), serde_json::Error> {
    body.extend_from_slice(head);
    serde_json::to_writer(&mut *body, record)?;
    body.extend_from_slice(END);
    Ok(())
}

/// How far texts and lists are cut, in bytes and in items.
#[derive(Clone, Copy)]
struct Cut {
    text: usize,
    items: usize,
}

impl Cut {
    /// `text`, cut at a character and marked.
    fn of(self, text: &str) -> String {
        let mut kept = String::with_capacity(self.text + 16);
        for character in text.chars() {
            if kept.len() + character.len_utf8() > self.text {
                break;
            }
            kept.push(character);
        }
        kept.push_str("…[cut]");
        kept
    }

    fn string(self, text: &mut String) {
        if text.len() > self.text {
            *text = self.of(text);
        }
    }

    fn optional(self, text: &mut Option<String>) {
        if let Some(text) = text {
            self.string(text);
        }
    }

    fn shared(self, text: &mut Cow<'static, str>) {
        if text.len() > self.text {
            *text = Cow::Owned(self.of(text));
        }
    }

    fn rules(self, rules: &mut Arc<[RuleId]>) {
        if rules.len() > self.items {
            let mut kept = rules.to_vec();
            self.ends(&mut kept);
            *rules = kept.into();
        }
    }

    /// The first and the last of them: what began a call and what ended it. Each adds to those before.
    fn ends<T>(self, items: &mut Vec<T>) {
        let half = self.items / 2;
        if items.len() > self.items {
            items.drain(half..items.len() - (self.items - half));
        }
    }

    fn outcome(self, outcome: &mut Outcome) {
        match outcome {
            Outcome::Refused { reason, stage }
            | Outcome::Withheld { reason, stage }
            | Outcome::Faulted { reason, stage } => {
                self.shared(reason);
                self.shared(stage);
            }
            Outcome::Answered | Outcome::Failed | Outcome::Abandoned | Outcome::Unknown => {}
        }
    }
}

#[expect(clippy::ref_option, reason = "the signature is serde's")]
fn safe_integer_option<S: Serializer>(value: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.serialize_u64((*value).min(LARGEST)),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests;
