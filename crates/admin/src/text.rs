//! The texts beside the log: shown to those who may, and destroyed on demand.
//!
//! Both are on record like every action here. Shows nothing that the record's digest does not vouch for without saying
//! so.

use crate::{
    answer::{Done, Fault, name, read},
    audit_log::{find, on_disk},
    desk::Desk,
};
use audit::{Commitment, Days, Erasure, Kept, ReadFault, SaltsFault};
use axum::{
    body::Bytes,
    extract::{Path, State},
};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use vocab::{CallId, Side, Timestamp};

/// Which days are to be erased: one of these.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    day: Option<String>,
    before: Option<String>,
}

/// What is kept of the arguments and the result of a call.
pub(crate) async fn show(State(desk): State<Arc<Desk>>, Path(call): Path<String>) -> Result<Done, Fault> {
    let call: CallId = name(&call)?;
    let texts = on_disk(&desk, move |desk| {
        let records = find(desk, &call)?;
        let records: Vec<&Value> = records.iter().filter_map(|entry| entry.value.get("record")).collect();
        if records.is_empty() {
            return Ok(None);
        }
        let sides = [("arguments", Side::Arguments), ("result", Side::Result)];
        let texts: Result<Vec<Value>, ReadFault> =
            sides.into_iter().map(|(side, of)| describe(desk, &call, &records, side, of)).collect();
        texts.map(Some)
    })
    .await
    .map_err(|fault| fault.to(&call))?;
    let texts = texts.ok_or_else(|| Fault::missing(format!("no record of call {call} is signed yet")).to(&call))?;
    let word = |text: &Value, name: &str| text.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let states: Vec<String> =
        texts.iter().map(|text| format!("{} {}", word(text, "side"), word(text, "state"))).collect();
    Ok(Done::json(json!({ "call": call.to_string(), "texts": texts })).to(&call).detail(states.join(", ")))
}

/// `records`: all that the log says of the call, in order.
fn describe(desk: &Desk, call: &CallId, records: &[&Value], side: &str, of: Side) -> Result<Value, ReadFault> {
    // The closing says more than the intent, and comes after it.
    let commitment = records.iter().rev().find_map(|record| recorded(record, side));
    // Texts lie with the day the call arrived. A closing after a crash has the time of the restart.
    let at = records.first().and_then(|record| record.get("at")).and_then(Value::as_i64);
    let at = at.map(Timestamp::from_micros).unwrap_or_default();
    let kept = match desk.log.texts() {
        Some(texts) => texts.read(call, at, of)?,
        None => Kept::Absent,
    };
    Ok(match kept {
        Kept::Text { text, whole } => {
            let cut = (text.len() as u64) < whole;
            let (matches, unchecked) = match commitment {
                // A beginning proves nothing.
                Some(_) if cut => (None, Some("cut")),
                Some(commitment) => match desk.log.salts().matches(&commitment, call, at, of, &text) {
                    Ok(matches) => (Some(matches), None),
                    Err(SaltsFault::Gone) => (None, Some("salt-gone")),
                    Err(SaltsFault::Disk { cause, .. }) => return Err(ReadFault::Disk(cause)),
                },
                None if records.iter().any(|record| should_have(record, side)) => (Some(false), None),
                None => (None, Some("no-digest")),
            };
            let text = String::from_utf8_lossy(&text);
            json!({
                "side": side, "state": "kept", "text": text, "bytes": whole, "cut": cut, "matches": matches,
                "unchecked": unchecked,
            })
        }
        Kept::Erased => json!({ "side": side, "state": "erased" }),
        Kept::Absent => json!({ "side": side, "state": "not-kept" }),
        Kept::Damaged => json!({ "side": side, "state": "damaged", "matches": false }),
    })
}

/// What a record commits to.
fn recorded(record: &Value, side: &str) -> Option<Commitment> {
    record.get(side).and_then(|commitment| serde_json::from_value(commitment.clone()).ok())
}

/// Whether a record without a digest of a text says that there was none: it is the closing of an answered call, and the
/// other text has its digest. While a call is under way, after a crash, and without a salt key, nothing is said.
fn should_have(record: &Value, side: &str) -> bool {
    let other = if side == "arguments" { "result" } else { "arguments" };
    record.pointer("/outcome/is").and_then(Value::as_str) == Some("answered") && recorded(record, other).is_some()
}

/// Destroys what was kept of whole days.
pub(crate) async fn erase(State(desk): State<Arc<Desk>>, body: Bytes) -> Result<Done, Fault> {
    let usage = "{\"day\": \"2026-11-20\"} or {\"before\": \"2026-11-20\"}";
    let Wanted { day, before } = read(&body, usage)?;
    let (days, target) = match (day, before) {
        (Some(day), None) => (Days::One(name(&day)?), day),
        (None, Some(before)) => (Days::Before(name(&before)?), format!("before {before}")),
        (Some(_), Some(_)) | (None, None) => return Err(Fault::bad(format!("send {usage}"))),
    };
    let now = desk.clock.now();
    let Erasure { days: erased, fault } = on_disk(&desk, move |desk| Ok(desk.log.erase(days, now))).await?;
    let names: Vec<String> = erased.iter().map(|erased| erased.day.to_string()).collect();
    if let Some(cause) = fault {
        let done = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
        tracing::error!(%cause, erased = %done, "texts cannot be erased, or not all");
        let message = format!("erased: {done}; not all could be: {cause}; erase again to end it");
        return Err(Fault::new(StatusCode::INTERNAL_SERVER_ERROR, "fault", message).to(&target));
    }
    let detail = if names.is_empty() { "nothing was kept".to_owned() } else { names.join(", ") };
    let list: Vec<Value> =
        erased.iter().map(|erased| json!({ "day": erased.day.to_string(), "digests": erased.digests })).collect();
    Ok(Done::json(json!({ "erased": list })).to(&target).detail(detail))
}
