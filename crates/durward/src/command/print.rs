//! Data on stdout, talk on stderr. Never panics when whoever reads has gone.

use crate::cli::Output;
use anyhow::Result;
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;
use std::{
    fmt::Write as _,
    io::{self, Write},
};

/// Talks. The lines of a text are ours; what stands in them may be others'.
pub(crate) fn say(text: &str) {
    // Nobody listens any more: then there is nobody to tell either.
    let _ = writeln!(io::stderr(), "{}", safe_lines(text));
}

/// Prints data.
pub(crate) fn data(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}

/// Prints one JSON value.
pub(crate) fn json(value: &Value) -> Result<()> {
    data(&escaped(&serde_json::to_string_pretty(value)?))
}

/// JSON in other letters: what `safe` hides is written as escapes, so that it says the same to whatever reads JSON. Outside
/// of its texts JSON has none of that but ends of lines.
pub(crate) fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if is_unsafe(c) && c != '\n' {
            // All of them have four digits.
            let _ = write!(text, "\\u{:04x}", u32::from(c));
        } else {
            text.push(c);
        }
    }
    text
}

/// Prints a list: as JSON, or as a table of the columns that `row` makes of each member.
pub(crate) fn list<const N: usize>(
    output: Output,
    value: &Value,
    member: &str,
    header: [&str; N],
    row: impl Fn(&Value) -> [String; N],
) -> Result<()> {
    let items = value.get(member).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    match output {
        Output::Json => json(value),
        Output::Table if items.is_empty() => {
            say(&format!("no {}", member.replace('_', " ")));
            Ok(())
        }
        Output::Table => {
            let mut table = Table::new();
            table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
            table.set_header(header.map(str::to_uppercase));
            for item in items {
                table.add_row(row(item).map(|cell| safe(&cell)));
            }
            data(&bare(&table))
        }
    }
}

/// The table without the space that its frame would take.
fn bare(table: &Table) -> String {
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    let margin = lines.iter().map(|line| line.len() - line.trim_start().len()).min().unwrap_or(0);
    lines.iter().map(|line| line.get(margin..).unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The text of a member; a dash where there is none.
pub(crate) fn text(value: &Value, member: &str) -> String {
    match value.get(member) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) if items.is_empty() => "-".to_owned(),
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned))
            .collect::<Vec<_>>()
            .join(","),
        Some(other) => other.to_string(),
    }
}

/// What others wrote must not move the cursor of whoever reads, nor turn the order in which a line is read.
pub(crate) fn safe(text: &str) -> String {
    text.chars().map(|c| if is_unsafe(c) { '\u{fffd}' } else { c }).collect()
}

/// The same of a text of several lines.
pub(crate) fn safe_lines(text: &str) -> String {
    let is_kept = |c: char| matches!(c, '\n' | '\t') || !is_unsafe(c);
    text.chars().map(|c| if is_kept(c) { c } else { '\u{fffd}' }).collect()
}

/// The same as escapes, in one line.
pub(crate) fn in_one_line(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |text, c| letter(text, c, is_unsafe(c)))
}

/// The same of a text of several lines, of which only the first begins at the margin.
pub(crate) fn indented(text: &str) -> String {
    let text = text.replace('\n', "\n    ");
    let is_kept = |c: char| matches!(c, '\n' | '\t') || !is_unsafe(c);
    text.chars().fold(String::with_capacity(text.len()), |text, c| letter(text, c, !is_kept(c)))
}

fn letter(mut text: String, c: char, is_escaped: bool) -> String {
    if is_escaped {
        text.extend(c.escape_default());
    } else {
        text.push(c);
    }
    text
}

fn is_unsafe(c: char) -> bool {
    c.is_control() || turns(c) || matches!(c, '\u{2028}' | '\u{2029}')
}

/// The controls of the Unicode Bidirectional Algorithm (UAX #9 §2).
const fn turns(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A time, to the second.
pub(crate) fn time(value: &Value, member: &str) -> String {
    let text = text(value, member);
    match text.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// What turns the order of a line, or moves the cursor, beside what does neither.
    const TURNS: &str =
        "a\u{202a}b\u{202e}c\u{2066}d\u{2069}e\u{200e}f\u{200f}g\u{61c}h\u{9b}i\u{7f}j\u{2028}k \"\\ \u{e9}\u{1f600}";

    #[test]
    fn json_says_the_same_without_what_turns_a_line() {
        let value = json!({ TURNS: [TURNS, { "plain": "text" }] });
        let text = escaped(&serde_json::to_string_pretty(&value).unwrap());
        assert!(text.chars().all(|c| c == '\n' || !is_unsafe(c)), "{text:?}");
        assert!(text.contains("c\\u2066d") && text.contains("h\\u009bi") && text.contains("\u{1f600}"), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
        assert_eq!(escaped("{\n  \"a\": 1\n}"), "{\n  \"a\": 1\n}");
    }

    #[test]
    fn what_is_said_keeps_its_lines_and_nothing_that_turns_them() {
        let said = safe_lines(&format!("one\n\ttwo {TURNS}\u{1b}[2J"));
        assert!(said.starts_with("one\n\ttwo a\u{fffd}b") && said.ends_with("\u{fffd}[2J"), "{said:?}");
        assert!(said.chars().all(|c| matches!(c, '\n' | '\t') || !is_unsafe(c)), "{said:?}");
    }
}
