//! Arguments against the tool's schema, and header mirrors of arguments against the arguments.

use crate::{
    call::Call,
    catalog::{
        Fitness,
        schema::{Misfit, Schema},
    },
    pipeline::Line,
    resolve::Target,
    stop::{Stage, Stop},
    trail::{Facts, Noted},
};
use audit::Fingerprint;
use http::StatusCode;
use mcp::{
    Era,
    bridge::{BridgeFault, Filter},
    error,
};
use serde_json::Value;
use vocab::Digest;

/// A call whose arguments are what the tool takes.
#[must_use]
pub(crate) struct Valid {
    pub(crate) call: Box<Call>,
    /// The arguments as policy will see them; `Null` where there are none.
    pub(crate) arguments: Value,
    /// The digest of the very bytes.
    pub(crate) digest: Digest,
    _made: (),
}

impl Valid {
    /// What is judged from here on, for the record. `None` where nothing is said.
    pub(crate) fn judged(&self) -> Option<Fingerprint> {
        let said = self.call.message().and_then(|message| message.params().or_else(|| message.result()))?;
        Some(Fingerprint { bytes: said.len() as u64, digest: self.digest })
    }
}

impl Noted for Valid {
    const STAGE: Stage = Stage::Validate;

    fn note(&self, facts: &mut Facts) {
        facts.judged = self.judged();
    }
}

impl Line {
    /// Checks the arguments of a call.
    #[expect(clippy::unused_self, reason = "a stage of the line, asked as all others are")]
    pub(crate) fn validate(&self, call: Box<Call>, target: &Target) -> Result<Valid, Stop> {
        let digest = crate::resolve::digest_of(call.message());
        listens_to_what_can_be_judged(&call)?;
        let Some(one) = target.one().filter(|one| one.action.is_some() && one.answers.is_none()) else {
            return Ok(Valid { call, arguments: Value::Null, digest, _made: () });
        };
        let arguments = arguments(&call, one.tool.is_some())?;
        if let Some(tool) = &one.tool {
            // To a server of the legacy era annotations mean nothing; a modern client follows those it can.
            let spoken = one.crossing.into_era().unwrap_or(call.era);
            if let Some(why) = tool.refused(spoken).filter(|_| !one.skips_schema) {
                return Err(Stop::refused(
                    Stage::Validate,
                    "schema-unusable",
                    error::DEFINITION_UNUSABLE,
                    format!("the server's schema of this tool cannot be used, so its calls are refused: {why}"),
                ));
            }
            if let (Fitness::Fit(schema), false) = (&tool.fitness, one.skips_schema) {
                check(schema, &arguments, &call)?;
            }
            if call.era == Era::Modern {
                mcp::param::check(&call.headers, tool.bindings(), &arguments).map_err(|fault| {
                    Stop::refused(Stage::Validate, "header", fault.code(), fault.to_string())
                        .status(StatusCode::BAD_REQUEST)
                })?;
            }
        }
        Ok(Valid { call, arguments, digest, _made: () })
    }
}

/// What a listener names is judged one by one, now and for as long as it listens.
fn listens_to_what_can_be_judged(call: &Call) -> Result<(), Stop> {
    let Some(listen) = call.message().filter(|message| message.method() == "subscriptions/listen") else {
        return Ok(());
    };
    let refused = |fault: BridgeFault| {
        let pointer = match fault {
            BridgeFault::Malformed("notifications") => "/notifications".to_owned(),
            BridgeFault::Malformed(what) | BridgeFault::TooLarge { what, .. } => format!("/notifications/{what}"),
            _ => String::new(),
        };
        let places = vec![serde_json::json!({ "pointer": pointer, "problem": fault.to_string() })];
        Stop::refused(Stage::Validate, "arguments", error::INVALID_PARAMS, fault.to_string()).data("faults", places)
    };
    Filter::judge(listen).map_err(refused)
}

/// The arguments of a tool call, or all parameters of anything else.
fn arguments(call: &Call, is_tool: bool) -> Result<Value, Stop> {
    let Some(message) = call.message() else { return Ok(Value::Null) };
    let (member, nothing) = if is_tool {
        (message.arguments(), Value::Object(serde_json::Map::new()))
    } else {
        (message.params_member(), Value::Null)
    };
    let Some(member) = member else { return Ok(nothing) };
    match member.value() {
        Ok(value) if is_tool && !value.is_object() => {
            let fault = serde_json::json!({ "pointer": "", "problem": "not an object" });
            Err(Stop::refused(Stage::Validate, "arguments", error::INVALID_PARAMS, "`arguments` must be an object")
                .data("faults", vec![fault]))
        }
        Ok(value) => Ok(value),
        Err(fault) => {
            let pointer = mcp::pointer(member.raw, fault.at);
            let place = serde_json::json!({ "pointer": pointer, "problem": fault.why.to_string() });
            Err(Stop::refused(Stage::Validate, "arguments", error::INVALID_PARAMS, fault.to_string())
                .data("faults", vec![place]))
        }
    }
}

fn check(schema: &Schema, arguments: &Value, call: &Call) -> Result<(), Stop> {
    // What the parameters take as text, the arguments do not exceed.
    let bytes = call.message().and_then(|message| message.params()).map_or(usize::MAX, <[u8]>::len);
    let (text, faults) = match schema.check(arguments, bytes) {
        Ok(()) => return Ok(()),
        Err(Misfit::Faults(faults)) => {
            let place = |pointer: &str| if pointer.is_empty() { "(arguments)".to_owned() } else { pointer.to_owned() };
            let texts: Vec<_> = faults.iter().map(|(pointer, text)| format!("{}: {text}", place(pointer))).collect();
            (format!("the arguments do not fit the tool's schema: {}", texts.join("; ")), faults)
        }
        Err(Misfit::Somewhere) => {
            let text = "do not fit the tool's schema; it would take too long to say where";
            (format!("the arguments {text}"), vec![(String::new(), text.to_owned())])
        }
        Err(Misfit::TooMuch) => {
            let text = "are too large for the tool's schema: to hold them against it would take too long";
            (format!("the arguments {text}"), vec![(String::new(), text.to_owned())])
        }
    };
    let places: Vec<_> =
        faults.iter().map(|(at, text)| serde_json::json!({ "pointer": at, "problem": text })).collect();
    Err(Stop::refused(Stage::Validate, "arguments", error::INVALID_PARAMS, text).data("faults", places))
}
