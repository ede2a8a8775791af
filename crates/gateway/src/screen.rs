//! Detectors over what the caller sends. A rewrite sends the call through validation again: policy and the server see
//! the same final arguments.

use crate::{
    inspect::{self, Inspected},
    pipeline::Line,
    resolve::Target,
    stop::{Stage, Stop},
    text::Cleared,
    trail::{Facts, Noted},
    validate::Valid,
};
use bytes::Bytes;
use guard::{Screening, Verdict};
use http::HeaderMap;
use mcp::{Body, Message, error};
use serde_json::json;
use std::borrow::Cow;
use vocab::{Finding, Side};

/// A call whose text was looked at.
#[must_use]
pub(crate) struct Screened {
    pub(crate) valid: Valid,
    pub(crate) findings: Vec<Finding>,
    /// Nothing that was found is in it.
    clear: bool,
}

impl Noted for Screened {
    const STAGE: Stage = Stage::Screen;

    fn note(&self, facts: &mut Facts) {
        facts.findings.extend(self.findings.iter().cloned());
        // A mask changed it.
        facts.judged = self.valid.judged();
        facts.cleared = Cleared::of(self.valid.call.message().map(Message::said).unwrap_or_default(), self.clear);
    }
}

impl Line {
    /// Looks at all that a message says: its parameters, or the result of a client's answer, what stands beside them, and
    /// its method.
    pub(crate) fn screen(&self, valid: Valid, target: &Target) -> Result<Screened, Stop> {
        if self.snapshot.guards.is_off(Side::Arguments) {
            return Ok(Screened { valid, findings: Vec::new(), clear: true });
        }
        let Some(message) = valid.call.message() else {
            return Ok(Screened { valid, findings: Vec::new(), clear: true });
        };
        let Inspected { mut findings, clear, mut edits } =
            inspect::message(message, |text, _| self.snapshot.guards.screen(text));
        if let Some(method) = self.screen_method(message) {
            findings.extend(method.findings);
            // SECURITY: policy judges the very method that the server gets, which is no method any more with a mask in it.
            edits = edits.filter(|_| method.verdict == Verdict::Clean);
        }
        let Some(mut edits) = edits else { return Err(refused(target, message, &findings)) };
        if edits.is_empty() {
            return Ok(Screened { valid, findings, clear });
        }
        let masked = self.reread(mcp::splice(message.bytes(), &mut edits))?;
        // SECURITY: policy judges the very name that the server gets.
        if names(message) != names(&masked) {
            return Err(refused(target, message, &findings));
        }
        let mut call = valid.call;
        mirror(&mut call.headers, target, &masked);
        call.operation = crate::call::Operation::Message(masked);
        let valid = self.validate(call, target)?;
        Ok(Screened { valid, findings, clear })
    }

    /// Looks at a method that is none of MCP's, for it may be anything: at its shape alone, as at the address of a resource.
    fn screen_method(&self, message: &Message) -> Option<Screening> {
        let (method, guards) = (message.method(), &self.snapshot.guards);
        if message.known_method().is_some() || guards.is_clean_argument(method) {
            return None;
        }
        let mut screening = guards.screen(json!({ "uri": method }).to_string().as_bytes());
        for finding in &mut screening.findings {
            finding.pointer = "/method".into();
        }
        Some(screening)
    }

    fn reread(&self, body: Bytes) -> Result<Message, Stop> {
        match mcp::scan(body, &self.snapshot.request_limits()) {
            Ok(Body::Single(message)) => Ok(message),
            Ok(Body::Batch(_)) | Err(_) => Err(Stop::failed(
                Stage::Screen,
                "mask",
                error::INTERNAL,
                "the arguments could not be masked without breaking them",
            )),
        }
    }
}

/// What a message names, wherever it does.
fn names(message: &Message) -> [Option<Cow<'_, str>>; 3] {
    let text = |path: &[&str]| message.param(path).and_then(|member| member.text());
    [message.subject(), text(&["ref", "name"]), text(&["ref", "uri"])]
}

/// What headers mirror of the arguments follows the rewrite: the secret must not travel beside its mask.
fn mirror(headers: &mut HeaderMap, target: &Target, message: &Message) {
    let Some(tool) = target.one().and_then(|one| one.tool.as_ref()) else { return };
    let arguments = message.arguments().and_then(|member| member.value().ok());
    for (name, value) in arguments.iter().flat_map(|arguments| mcp::param::headers(tool.bindings(), arguments)) {
        // One that the client left out stays out: the check after this says so.
        if let Some(mirrored) = headers.get_mut(&name) {
            *mirrored = value;
        }
    }
}

fn refused(target: &Target, message: &Message, findings: &[Finding]) -> Stop {
    if let Some(question) = target.one().and_then(|one| one.answers.as_deref()) {
        question.refuse();
    }
    let places: Vec<serde_json::Value> = findings
        .iter()
        .take(16)
        .map(|finding| json!({ "kind": &*finding.kind, "pointer": &*finding.pointer }))
        .collect();
    let large = inspect::too_large(message);
    let why = match large {
        Some(what) => {
            format!("the message holds {what}: what cannot be looked into does not leave (`detect.secrets.arguments`)")
        }
        None => "the arguments contain what must not leave: a secret".to_owned(),
    };
    Stop::refused(Stage::Screen, "guard", error::REFUSED_GUARD, why).data("findings", places)
}
