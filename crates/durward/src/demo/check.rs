//! Whether a step of the tour did what it says. Judges answers and records; asks nobody, prints nothing.

use super::client::Answer;
use anyhow::{Result, bail, ensure};
use audit::{Broken, Verified, What};
use mcp::error::{INVALID_PARAMS, REFUSED_LIMIT, REFUSED_POLICY};
use serde_json::Value;
use vocab::Digest;

/// What a step has to show for itself, line by line; or why it did not do what it says.
pub(super) type Shown = Result<Vec<String>>;

impl Answer {
    /// The text of a tool's result.
    fn text(&self) -> Result<&str> {
        let result = self.message.pointer("/result/content/0/text").and_then(Value::as_str);
        let is_error = self.message.pointer("/result/isError") == Some(&Value::Bool(true));
        match result {
            Some(text) if !is_error => Ok(text),
            Some(_) | None => bail!("a result was due, this came: {}", self.message),
        }
    }

    /// Message and data of the error with this code.
    fn error(&self, code: i64) -> Result<(&str, &Value)> {
        let said = self.message.pointer("/error/code").and_then(Value::as_i64);
        ensure!(said == Some(code), "error {code} was due, this came: {}", self.message);
        let message = self.message.pointer("/error/message").and_then(Value::as_str).unwrap_or_default();
        Ok((message, self.message.pointer("/error/data").unwrap_or(&Value::Null)))
    }
}

/// The list holds exactly `visible` of the servers' `all` tools.
pub(super) fn listed(answer: &Answer, visible: &[String], hidden: &[String]) -> Shown {
    let tools = answer.message.pointer("/result/tools").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let mut seen: Vec<&str> = tools.iter().filter_map(|tool| tool.get("name")?.as_str()).collect();
    seen.sort_unstable();
    let mut due: Vec<&str> = visible.iter().map(String::as_str).collect();
    due.sort_unstable();
    ensure!(seen == due, "these were due: {}; these came: {}", due.join(", "), seen.join(", "));
    let hidden: Vec<&str> = hidden.iter().map(String::as_str).collect();
    let (few, all) = (seen.len(), visible.len() + hidden.len());
    Ok(vec![format!("it sees {few} of {all} tools; not there for it: {}", short(&hidden)), short(&seen)])
}

fn short(names: &[&str]) -> String {
    let names: Vec<&str> = names.iter().map(|name| name.rsplit("__").next().unwrap_or(name)).collect();
    names.join(", ")
}

/// The call was answered, and its record names `rule`.
pub(super) fn allowed(answer: &Answer, asked: &str, text: &str, record: &Value, rule: &str) -> Shown {
    let said = answer.text()?;
    ensure!(said == text, "{text:?} was due, this came: {said:?}");
    let rules = record.pointer("/record/rules").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    ensure!(rules.iter().any(|named| named == rule), "its record names no rule `{rule}`: {record}");
    Ok(vec![format!("{asked} → {said}"), format!("allowed by rule `{rule}`")])
}

/// The call was denied by `rule`, and the server was asked nothing.
pub(super) fn denied(answer: &Answer, asked: &str, rule: &str, forwarded: usize) -> Shown {
    let (message, data) = answer.error(REFUSED_POLICY)?;
    let rules = data.get("rules").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    ensure!(rules.iter().any(|named| named == rule), "the answer names no rule `{rule}`: {}", answer.message);
    ensure!(forwarded == 0, "the server was asked all the same");
    Ok(vec![format!("{asked}, which does not reach the server"), format!("→ {message}")])
}

/// The first `burst` calls were answered, the last one was told when to come again.
pub(super) fn limited(answers: &[Answer], asked: &str, burst: usize, forwarded: usize) -> Shown {
    let Some((last, first)) = answers.split_last() else { bail!("nothing was called") };
    ensure!(first.len() == burst, "{burst} calls were to come first");
    for answer in first {
        answer.text()?;
    }
    let (message, data) = last.error(REFUSED_LIMIT)?;
    let wait = data.get("retryAfter").and_then(Value::as_u64).unwrap_or_default();
    let header = last.headers.get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
    ensure!(wait > 0 && header == Some(wait), "no time to wait, or two of them: {wait}, {header:?}");
    ensure!(forwarded == burst, "the server was asked {forwarded} times");
    Ok(vec![format!("{asked}, after {burst} that went through"), format!("→ {message}")])
}

/// What the file holds came without its secrets.
pub(super) fn masked(answer: &Answer, asked: &str, seen: bool) -> Shown {
    let text = answer.text()?;
    ensure!(text.contains("REGION=eu-west-1"), "the rest of the file is gone too: {text:?}");
    for kind in ["[redacted:aws-access-key]", "[redacted:stripe-key]"] {
        ensure!(text.contains(kind), "no {kind} in {text:?}");
    }
    ensure!(!seen, "the secrets reached the agent");
    Ok(vec![asked.to_owned(), format!("→ {}", text.trim_end().replace('\n', "  "))])
}

/// The server got the credential, and the agent never saw it.
pub(super) fn injected(answer: &Answer, due: &Digest, seen: bool) -> Shown {
    let text = answer.text()?;
    let due = due.to_string();
    ensure!(text.contains(&due), "the digest {due} was due, this came: {text:?}");
    ensure!(!seen, "the credential passed the agent");
    let digest: String = due.chars().take("sha256:".len() + 8).collect();
    Ok(vec![
        format!("the server says: got the credential: yes, {digest}…, the one in the vault"),
        "nothing that the agent sent or received contains it".to_owned(),
    ])
}

/// The arguments were refused at `pointer`, and the server was asked nothing.
pub(super) fn unfit(answer: &Answer, asked: &str, pointer: &str, forwarded: bool) -> Shown {
    let (_, data) = answer.error(INVALID_PARAMS)?;
    let problem = data.pointer("/faults/0/problem").and_then(Value::as_str).unwrap_or_default();
    let place = data.pointer("/faults/0/pointer").and_then(Value::as_str);
    ensure!(place == Some(pointer), "`{pointer}` was due as the place, this came: {}", answer.message);
    ensure!(!forwarded, "the server was asked all the same");
    Ok(vec![format!("{asked} → error {INVALID_PARAMS} at {pointer}: {problem}")])
}

/// The log holds, and knows of at least so many calls.
pub(super) fn verified(found: Result<Verified, Broken>, calls: u64) -> Shown {
    let found = found?;
    let known: u64 = found.trees.iter().map(|tree| tree.kinds[1]).sum();
    ensure!(known >= calls, "{calls} calls were made, the log knows {known}");
    let open: usize = found.trees.iter().map(|tree| tree.open.len()).sum();
    ensure!(open == 0, "{open} intents were never closed");
    Ok(vec![format!(
        "{} records, {known} of them calls; every hash follows from the records, and the root is signed",
        found.records()
    )])
}

/// The verifier names the record that was changed.
pub(super) fn found_out(found: Result<Verified, Broken>, changed: u64, what: &str) -> Shown {
    let Err(broken) = found else { bail!("the verifier saw nothing") };
    ensure!(
        broken.index == changed && broken.what == What::Edited,
        "record {changed} was edited, the verifier says: {broken}"
    );
    Ok(vec![what.to_owned(), format!("→ {broken}")])
}

#[cfg(test)]
mod tests;
