//! Writes the two records that every call leaves as canonical JSON (RFC 8785), straight into bytes.
//!
//! A general serializer asks each value what it is; these records are written a hundred thousand times a minute and
//! know. Fields come in sorted order, which the tests check against an encoder written from the RFC. What writes one
//! member is not inlined: there are thirty in a record, and every record pays for each line of code that it touches.

use super::{CallRecord, Commitment, Intent, LARGEST, Outcome, Stage};
use std::net::IpAddr;
use vocab::{CallId, Digest, Finding, Side, Timestamp};

/// `,"name":`, in one piece.
macro_rules! key {
    ($name:literal) => {
        concat!(",\"", $name, "\":").as_bytes()
    };
}

/// An object being written. Every member begins with a comma; the first comma becomes the brace.
struct Object<'a> {
    to: &'a mut Vec<u8>,
    start: usize,
}

impl<'a> Object<'a> {
    const fn open(to: &'a mut Vec<u8>) -> Self {
        let start = to.len();
        Self { to, start }
    }

    fn close(self) {
        match self.to.get_mut(self.start) {
            Some(comma) => *comma = b'{',
            None => self.to.push(b'{'),
        }
        self.to.push(b'}');
    }

    /// Begins a member; its value is to be written next.
    fn member(&mut self, key: &'static [u8]) -> &mut Vec<u8> {
        self.to.extend_from_slice(key);
        self.to
    }

    #[inline(never)]
    fn text(&mut self, key: &'static [u8], text: Option<&str>) {
        if let Some(text) = text {
            quote(self.member(key), text);
        }
    }

    #[inline(never)]
    fn number(&mut self, key: &'static [u8], number: u64) {
        integer(self.member(key), number);
    }

    fn time(&mut self, key: &'static [u8], at: Timestamp) {
        let to = self.member(key);
        if at.as_micros() < 0 {
            to.push(b'-');
        }
        integer(to, at.as_micros().unsigned_abs());
    }

    #[inline(never)]
    fn call(&mut self, key: &'static [u8], call: Option<CallId>) {
        if let Some(call) = call {
            enclose(self.member(key), b"", &call.hex());
        }
    }

    #[inline(never)]
    fn digest(&mut self, key: &'static [u8], digest: Option<Digest>) {
        if let Some(digest) = digest {
            enclose(self.member(key), b"sha256:", &digest.hex());
        }
    }

    #[inline(never)]
    fn commitment(&mut self, key: &'static [u8], commitment: Option<Commitment>) {
        if let Some(Commitment { bytes, digest }) = commitment {
            let mut inner = Object::open(self.member(key));
            inner.number(key!("bytes"), bytes);
            inner.digest(key!("digest"), Some(digest));
            inner.close();
        }
    }

    fn list<T>(&mut self, key: &'static [u8], items: &[T], mut item: impl FnMut(&mut Vec<u8>, &T)) {
        if items.is_empty() {
            return;
        }
        let to = self.member(key);
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
        object.text(key!("action"), self.action.map(vocab::Action::as_str));
        object.text(key!("agent"), self.agent.as_ref().map(vocab::AgentId::as_str));
        object.commitment(key!("arguments"), self.arguments);
        object.time(key!("at"), self.at);
        object.call(key!("call"), Some(self.call));
        object.text(key!("class"), self.class.map(vocab::Class::as_str));
        object.text(key!("issuer"), self.issuer.as_ref().map(vocab::IssuerName::as_str));
        object.text(key!("method"), self.method.as_deref());
        object.call(key!("parent"), self.parent);
        object.digest(key!("policy"), self.policy);
        object.list(key!("rules"), &self.rules, |to, rule| quote(to, rule.as_str()));
        object.text(key!("server"), self.server.as_ref().map(vocab::ServerName::as_str));
        object.text(key!("target"), self.target.as_deref());
        object.text(key!("tenant"), Some(self.tenant.as_str()));
        object.text(key!("trace"), self.trace.as_deref());
        object.text(key!("user"), self.user.as_ref().map(vocab::UserId::as_str));
        object.close();
    }
}

impl CallRecord {
    pub(super) fn write(&self, to: &mut Vec<u8>) {
        let mut object = Object::open(to);
        object.text(key!("action"), self.action.map(vocab::Action::as_str));
        object.text(key!("agent"), self.agent.as_ref().map(vocab::AgentId::as_str));
        object.commitment(key!("arguments"), self.arguments);
        object.time(key!("at"), self.at);
        object.text(key!("bridge"), self.bridge.as_deref());
        object.call(key!("call"), Some(self.call));
        object.text(key!("class"), self.class.map(vocab::Class::as_str));
        object.text(key!("credential"), self.credential.as_ref().map(vocab::SecretName::as_str));
        if self.cut {
            object.member(key!("cut")).extend_from_slice(b"true");
        }
        object.number(key!("duration_us"), self.duration_us);
        object.text(key!("era"), self.era.as_deref());
        object.text(key!("error"), self.error.as_deref());
        object.list(key!("findings"), &self.findings, finding);
        if let Some(status) = self.http_status {
            object.number(key!("http_status"), status.into());
        }
        object.text(key!("identity"), self.identity.as_deref());
        if let Some(leaf) = self.intent {
            object.number(key!("intent"), leaf);
        }
        object.text(key!("issuer"), self.issuer.as_ref().map(vocab::IssuerName::as_str));
        object.text(key!("method"), self.method.as_deref());
        outcome(object.member(key!("outcome")), &self.outcome);
        object.call(key!("parent"), self.parent);
        if let Some(peer) = self.peer {
            address(object.member(key!("peer")), peer);
        }
        object.digest(key!("policy"), self.policy);
        object.commitment(key!("result"), self.result);
        object.list(key!("rules"), &self.rules, |to, rule| quote(to, rule.as_str()));
        object.text(key!("server"), self.server.as_ref().map(vocab::ServerName::as_str));
        object.digest(key!("session"), self.session);
        if !self.stages.is_empty() {
            stages(object.member(key!("stages")), &self.stages);
        }
        object.text(key!("target"), self.target.as_deref());
        object.text(key!("tenant"), Some(self.tenant.as_str()));
        object.text(key!("trace"), self.trace.as_deref());
        object.text(key!("user"), self.user.as_ref().map(vocab::UserId::as_str));
        object.close();
    }
}

/// Most peers are IPv4, and four numbers need no formatter.
fn address(to: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            let mut sign = b'"';
            for octet in address.octets() {
                to.push(sign);
                integer(to, octet.into());
                sign = b'.';
            }
            to.push(b'"');
        }
        IpAddr::V6(_) => quote(to, &address.to_string()),
    }
}

fn finding(to: &mut Vec<u8>, finding: &Finding) {
    let mut object = Object::open(to);
    object.text(key!("detector"), Some(&finding.detector));
    object.text(key!("kind"), Some(&finding.kind));
    object.text(key!("pointer"), Some(&finding.pointer));
    object.text(
        key!("side"),
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
    object.text(key!("is"), Some(is));
    if let Some((reason, stage)) = why {
        object.text(key!("reason"), Some(reason));
        object.text(key!("stage"), Some(stage));
    }
    object.close();
}

/// Stages as one object, name to microseconds, in the order that canonical JSON wants. They should come in it.
fn stages(to: &mut Vec<u8>, stages: &[Stage]) {
    if stages.is_sorted_by(|one, next| one.name < next.name) {
        ordered_stages(to, stages);
        return;
    }
    let mut sorted = stages.to_vec();
    sorted.sort_by_key(|stage| stage.name);
    sorted.dedup_by_key(|stage| stage.name);
    ordered_stages(to, &sorted);
}

fn ordered_stages(to: &mut Vec<u8>, stages: &[Stage]) {
    let object = Object::open(to);
    for stage in stages {
        for part in [b",\"", stage.name.as_bytes(), b"\":"] {
            object.to.extend_from_slice(part);
        }
        integer(object.to, stage.us.into());
    }
    object.close();
}

/// `"`, `prefix`, `text`, `"`: for texts that need no escapes.
#[inline(never)]
fn enclose(to: &mut Vec<u8>, prefix: &[u8], text: &[u8]) {
    to.push(b'"');
    to.extend_from_slice(prefix);
    to.extend_from_slice(text);
    to.push(b'"');
}

#[inline(never)]
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

/// A number as JSON has it, at most [`LARGEST`].
#[inline(never)]
pub(super) fn integer(to: &mut Vec<u8>, number: u64) {
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
