//! Texts beside the log: shown and erased through management, for both need the vault, and both are on record.

use super::super::{
    office::{Office, Site},
    print,
};
use crate::cli::{Exit, Output, Shared};
use anyhow::{Result, bail};
use http::Method;
use serde_json::{Value, json};
use std::path::Path;
use vocab::{CallId, Day, TenantId};

/// Whether texts of that day are kept beside this log, or were.
pub(super) fn are_kept(log: &Path, day: Day) -> bool {
    log.join("text").join(TenantId::default_tenant().as_str()).join(day.to_string()).is_dir()
}

/// Prints what is kept of a call. A text that is not the one in the record has its own exit code.
pub(super) async fn show(output: Output, site: &Site, call: CallId) -> Result<Exit> {
    // Opening a directory makes what is missing. A copy of the log alone stays as it is: its keys are elsewhere.
    if !Office::is_running(site).await && !site.data.join(vault::FILE).exists() {
        bail!("there is no vault in {}, which alone opens them", site.data.display());
    }
    let office = Office::open(site, false).await?;
    let answer = office.ask(Method::GET, &format!("/api/audit/calls/{call}/texts"), None).await;
    office.close().await?;
    let answer = answer?.value()?;
    let texts = answer.get("texts").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut changed = false;
    for text in texts {
        changed |= text.get("matches") == Some(&Value::Bool(false));
        match output {
            Output::Json => print::data(&print::escaped(&json!({ "kind": "text", "text": text }).to_string()))?,
            Output::Table => print::data(&paragraph(text))?,
        }
    }
    Ok(if changed { Exit::Broken } else { Exit::Done })
}

/// A text, under a line that says what it is.
fn paragraph(text: &Value) -> String {
    let member = |name: &str| text.get(name).and_then(Value::as_str).unwrap_or_default();
    let bytes = text.get("bytes").and_then(Value::as_u64).unwrap_or_default();
    let cut = text.get("cut") == Some(&Value::Bool(true));
    let said = match (member("state"), text.get("matches").and_then(Value::as_bool)) {
        ("kept", Some(true)) => format!("{bytes} bytes, as recorded"),
        ("kept", Some(false)) => format!("{bytes} bytes, CHANGED: this is not the text that was recorded"),
        ("kept", None) if cut => format!("the beginning of {bytes} bytes; only all of it could be checked"),
        ("kept", None) if member("unchecked") == "no-digest" => {
            format!("{bytes} bytes, unchecked: no digest of it is recorded")
        }
        ("kept", None) => format!("{bytes} bytes, unchecked: the salt key of its day is gone"),
        ("damaged", _) => "CHANGED: what is kept does not open".to_owned(),
        ("erased", _) => "erased".to_owned(),
        _ => "not kept".to_owned(),
    };
    let safe = print::safe_lines(member("text"));
    let side = member("side");
    if safe.is_empty() { format!("{side}: {said}") } else { format!("{side}: {said}\n{safe}") }
}

/// Destroys the texts of whole days.
pub(super) async fn erase(shared: &Shared, day: Option<Day>, before: Option<Day>) -> Result<Exit> {
    let site = Site::find(shared)?;
    let office = Office::open(&site, false).await?;
    let wanted = match (day, before) {
        (Some(day), _) => json!({ "day": day.to_string() }),
        (None, before) => json!({ "before": before.map(|day| day.to_string()) }),
    };
    let answer = office.ask(Method::POST, "/api/audit/erase", Some(&wanted)).await;
    office.close().await?;
    let answer = answer?.value()?;
    let nothing = answer.get("erased").and_then(Value::as_array).is_none_or(Vec::is_empty);
    if nothing && shared.output == Output::Table {
        print::say(&match (day, before) {
            (Some(day), _) => format!("nothing is kept of {day}: nothing was erased"),
            (None, Some(before)) => format!("nothing is kept of the days before {before}: nothing was erased"),
            (None, None) => "nothing was erased".to_owned(),
        });
        return Ok(Exit::Done);
    }
    let header = ["day", "digests"];
    print::list(shared.output, &answer, "erased", header, |erased| {
        let left = erased.get("digests") == Some(&Value::Bool(false));
        let digests = if left { "until the day is over" } else { "say nothing any more" };
        [print::text(erased, "day"), digests.to_owned()]
    })?;
    Ok(Exit::Done)
}
