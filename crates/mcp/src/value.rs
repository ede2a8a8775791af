//! Builds a tree from text, member by member.
//!
//! SECURITY: never through `serde_json::Value`'s own reader. With `raw_value` or `arbitrary_precision` on anywhere in
//! the build, magic keys in the input make it yield something else than the upstream will see.

use crate::{Limits, ScanFault, Span, Why, scan_value, text::unescape, walk::Walk};
use serde_json::{Map, Number, Value};

/// Reads any JSON value as a tree, with every check of [`scan_value`]: at most [`Limits::DEEPEST`] levels, no duplicate
/// keys. Integers that fit 64 bits keep their value, others become the nearest double; one beyond a double's range is a
/// fault.
pub fn value(text: &[u8]) -> Result<Value, ScanFault> {
    scan_value(text, &Limits::WIDEST)?;
    scanned(text)
}

/// Reads a JSON value that a scan has accepted already.
pub(crate) fn scanned(text: &[u8]) -> Result<Value, ScanFault> {
    let from = text.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or(0);
    let to = text.iter().rposition(|byte| !byte.is_ascii_whitespace()).map_or(0, |last| last + 1);
    tree(text, from..to)
}

/// Recurses at most [`Limits::DEEPEST`] deep: the scan bounded it.
fn tree(text: &[u8], place: Span) -> Result<Value, ScanFault> {
    let at = place.start;
    let raw = text.get(place).unwrap_or_default();
    Ok(match raw {
        b"null" => Value::Null,
        b"true" => Value::Bool(true),
        b"false" => Value::Bool(false),
        [b'"', inner @ .., b'"'] => {
            let text = unescape(inner).ok_or(ScanFault { at, why: Why::LoneSurrogate })?;
            Value::String(text.into_owned())
        }
        [b'[', ..] => {
            let mut items = Vec::new();
            let mut walk = Walk::new(raw, at);
            while let Some(item) = walk.element() {
                items.push(tree(text, item)?);
            }
            Value::Array(items)
        }
        [b'{', ..] => {
            let mut members = Map::new();
            let mut walk = Walk::new(raw, at);
            while let Some((key, member)) = walk.member() {
                members.insert(key.into_owned(), tree(text, member)?);
            }
            Value::Object(members)
        }
        _ => Value::Number(number(raw).ok_or(ScanFault { at, why: Why::NumberRange })?),
    })
}

fn number(raw: &[u8]) -> Option<Number> {
    let raw = std::str::from_utf8(raw).ok()?;
    // An integer type would lose the sign.
    if raw != "-0" {
        if let Ok(number) = raw.parse::<u64>() {
            return Some(number.into());
        }
        if let Ok(number) = raw.parse::<i64>() {
            return Some(number.into());
        }
    }
    Number::from_f64(raw.parse().ok()?)
}

/// The JSON pointer (RFC 6901) of the innermost value of a scanned `text` that holds the byte `at`.
pub fn pointer(text: &[u8], at: usize) -> String {
    let (mut pointer, mut place) = (String::new(), 0..text.len());
    while let Some((step, inner)) = step_towards(text, place, at) {
        pointer.push('/');
        pointer.push_str(&step.replace('~', "~0").replace('/', "~1"));
        place = inner;
    }
    pointer
}

/// The member or element of the value at `place` that holds the byte `at`: its name or number, and its own place.
fn step_towards(text: &[u8], place: Span, at: usize) -> Option<(String, Span)> {
    let blank = text.get(place.clone())?.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
    let start = place.start + blank;
    let raw = text.get(start..place.end)?;
    let mut walk = Walk::new(raw, start);
    if raw.first() == Some(&b'{') {
        let mut members = std::iter::from_fn(|| walk.member());
        members.find(|(_, member)| member.contains(&at)).map(|(key, member)| (key.into_owned(), member))
    } else {
        let mut elements = std::iter::from_fn(|| walk.element()).enumerate();
        elements.find(|(_, element)| element.contains(&at)).map(|(place, element)| (place.to_string(), element))
    }
}
