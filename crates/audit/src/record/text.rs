//! Writes the two records that every call leaves as canonical JSON (RFC 8785), straight into bytes.
//!
//! A general serializer asks each value what it is; these records are written a hundred thousand times a minute and
//! know. Fields come in sorted order, which the tests check against an encoder written from the RFC.

use super::{CallRecord, Commitment, Intent, LARGEST, Outcome, Stage};
use vocab::{CallId, Digest, Finding, Side, Timestamp};

/// An object being written.
struct Object<'a> {
    to: &'a mut Vec<u8>,
    empty: bool,
}

impl<'a> Object<'a> {
    fn open(to: &'a mut Vec<u8>) -> Self {
        to.push(b'{');
        Self { to, empty: true }
    }

    fn close(self) {
        self.to.push(b'}');
    }

    /// Begins a member; its value is to be written next.
    fn member(&mut self, name: &str) -> &mut Vec<u8> {
        self.to.extend_from_slice(if std::mem::replace(&mut self.empty, false) { b"\"" } else { b",\"" });
        self.to.extend_from_slice(name.as_bytes());
        self.to.extend_from_slice(b"\":");
        self.to
    }

    fn text(&mut self, name: &str, text: Option<&str>) {
        if let Some(text) = text {
            quote(self.member(name), text);
        }
    }

    fn number(&mut self, name: &str, number: u64) {
        integer(self.member(name), number);
    }

    fn time(&mut self, name: &str, at: Timestamp) {
        let to = self.member(name);
        if at.as_micros() < 0 {
            to.push(b'-');
        }
        integer(to, at.as_micros().unsigned_abs());
    }

    fn call(&mut self, name: &str, call: Option<CallId>) {
        if let Some(call) = call {
            enclose(self.member(name), b"", &call.hex());
        }
    }

    fn digest(&mut self, name: &str, digest: Option<Digest>) {
        if let Some(digest) = digest {
            enclose(self.member(name), b"sha256:", &digest.hex());
        }
    }

    fn commitment(&mut self, name: &str, commitment: Option<Commitment>) {
        if let Some(Commitment { bytes, digest }) = commitment {
            let mut inner = Object::open(self.member(name));
            inner.number("bytes", bytes);
            inner.digest("digest", Some(digest));
            inner.close();
        }
    }

    fn list<T>(&mut self, name: &str, items: &[T], mut item: impl FnMut(&mut Vec<u8>, &T)) {
        if items.is_empty() {
            return;
        }
        let to = self.member(name);
        for (place, one) in items.iter().enumerate() {
            to.push(if place == 0 { b'[' } else { b',' });
            item(to, one);
        }
        to.push(b']');
    }
}

impl Intent {
    pub(super) fn write(&self, to: &mut Vec<u8>) {
        let mut object = Object::open(to);
        object.text("action", self.action.map(vocab::Action::as_str));
        object.text("agent", self.agent.as_ref().map(vocab::AgentId::as_str));
        object.commitment("arguments", self.arguments);
        object.time("at", self.at);
        object.call("call", Some(self.call));
        object.text("class", self.class.map(vocab::Class::as_str));
        object.text("method", self.method.as_deref());
        object.call("parent", self.parent);
        object.digest("policy", self.policy);
        object.list("rules", &self.rules, |to, rule| quote(to, rule.as_str()));
        object.text("server", self.server.as_ref().map(vocab::ServerName::as_str));
        object.text("target", self.target.as_deref());
        object.text("tenant", Some(self.tenant.as_str()));
        object.text("trace", self.trace.as_deref());
        object.text("user", self.user.as_ref().map(vocab::UserId::as_str));
        object.close();
    }
}

impl CallRecord {
    pub(super) fn write(&self, to: &mut Vec<u8>) {
        let mut object = Object::open(to);
        object.text("action", self.action.map(vocab::Action::as_str));
        object.text("agent", self.agent.as_ref().map(vocab::AgentId::as_str));
        object.commitment("arguments", self.arguments);
        object.time("at", self.at);
        object.call("call", Some(self.call));
        object.text("class", self.class.map(vocab::Class::as_str));
        object.text("credential", self.credential.as_ref().map(vocab::SecretName::as_str));
        if self.cut {
            object.member("cut").extend_from_slice(b"true");
        }
        object.number("duration_us", self.duration_us);
        object.text("era", self.era.as_deref());
        object.text("error", self.error.as_deref());
        object.list("findings", &self.findings, finding);
        if let Some(status) = self.http_status {
            object.number("http_status", status.into());
        }
        object.text("identity", self.identity.as_deref());
        if let Some(leaf) = self.intent {
            object.number("intent", leaf);
        }
        object.text("method", self.method.as_deref());
        outcome(object.member("outcome"), &self.outcome);
        object.call("parent", self.parent);
        object.text("peer", self.peer.as_deref());
        object.digest("policy", self.policy);
        object.commitment("result", self.result);
        object.list("rules", &self.rules, |to, rule| quote(to, rule.as_str()));
        object.text("server", self.server.as_ref().map(vocab::ServerName::as_str));
        object.digest("session", self.session);
        if !self.stages.is_empty() {
            stages(object.member("stages"), &self.stages);
        }
        object.text("target", self.target.as_deref());
        object.text("tenant", Some(self.tenant.as_str()));
        object.text("trace", self.trace.as_deref());
        object.text("user", self.user.as_ref().map(vocab::UserId::as_str));
        object.close();
    }
}

fn finding(to: &mut Vec<u8>, finding: &Finding) {
    let mut object = Object::open(to);
    object.text("detector", Some(&finding.detector));
    object.text("kind", Some(&finding.kind));
    object.text("pointer", Some(&finding.pointer));
    object.text(
        "side",
        Some(match finding.side {
            Side::Arguments => "arguments",
            Side::Result => "result",
        }),
    );
    object.close();
}

fn outcome(to: &mut Vec<u8>, outcome: &Outcome) {
    let (is, why) = match outcome {
        Outcome::Answered => ("answered", None),
        Outcome::Failed => ("failed", None),
        Outcome::Refused { reason, stage } => ("refused", Some((reason, stage))),
        Outcome::Withheld { reason, stage } => ("withheld", Some((reason, stage))),
        Outcome::Faulted { reason, stage } => ("faulted", Some((reason, stage))),
        Outcome::Abandoned => ("abandoned", None),
        Outcome::Unknown => ("unknown", None),
    };
    let mut object = Object::open(to);
    object.text("is", Some(is));
    if let Some((reason, stage)) = why {
        object.text("reason", Some(reason));
        object.text("stage", Some(stage));
    }
    object.close();
}

/// Stages as one object, name to microseconds, in the order that canonical JSON wants.
fn stages(to: &mut Vec<u8>, stages: &[Stage]) {
    let mut sorted = stages.to_vec();
    sorted.sort_unstable_by_key(|stage| stage.name);
    sorted.dedup_by_key(|stage| stage.name);
    let mut object = Object::open(to);
    for stage in &sorted {
        object.number(stage.name, stage.us.into());
    }
    object.close();
}

/// `"`, `prefix`, `text`, `"`: for texts that need no escapes.
fn enclose(to: &mut Vec<u8>, prefix: &[u8], text: &[u8]) {
    to.push(b'"');
    to.extend_from_slice(prefix);
    to.extend_from_slice(text);
    to.push(b'"');
}

fn quote(to: &mut Vec<u8>, text: &str) {
    if text.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
        enclose(to, b"", text.as_bytes());
        return;
    }
    to.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' => to.extend_from_slice(b"\\\""),
            b'\\' => to.extend_from_slice(b"\\\\"),
            0x08 => to.extend_from_slice(b"\\b"),
            b'\t' => to.extend_from_slice(b"\\t"),
            b'\n' => to.extend_from_slice(b"\\n"),
            0x0c => to.extend_from_slice(b"\\f"),
            b'\r' => to.extend_from_slice(b"\\r"),
            0..b' ' => to.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => to.push(byte),
        }
    }
    to.push(b'"');
}

fn integer(to: &mut Vec<u8>, number: u64) {
    let mut number = number.min(LARGEST);
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(number % 10).unwrap_or_default();
        number /= 10;
        at -= 1;
        if number == 0 {
            break;
        }
    }
    to.extend_from_slice(digits.get(at..).unwrap_or_default());
}
