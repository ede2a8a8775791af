//! Whether what a client gives in answer to a question of a server is an answer to that: what results of
//! `elicitation/create`, `sampling/createMessage` and `roots/list` must have (2026-07-28, schema; older revisions want the
//! same, or less).
//!
//! Looks at what must be there, and no further: what no revision knows passes, and whether a form is filled in as it should be
//! is the server's to say.

use super::{
    BridgeFault, brief,
    rewrite::{at, elements, is_object, text_at},
};

/// What a value must be: how it begins, and what that is called.
type Shape = (u8, &'static str);
const TEXT: Shape = (b'"', "a string");
const OBJECT: Shape = (b'{', "an object");
const ARRAY: Shape = (b'[', "an array");

/// What blocks of sampled content must have, by their type.
const BLOCKS: [(&str, &[(&str, Shape)]); 5] = [
    ("text", &[("text", TEXT)]),
    ("image", &[("data", TEXT), ("mimeType", TEXT)]),
    ("audio", &[("data", TEXT), ("mimeType", TEXT)]),
    ("tool_use", &[("id", TEXT), ("name", TEXT), ("input", OBJECT)]),
    ("tool_result", &[("toolUseId", TEXT), ("content", ARRAY)]),
];

/// Whether this is an answer to a question for `method`. A fault names what is wrong with it, and what it should be.
pub fn check_answer(method: &str, answer: &[u8]) -> Result<(), BridgeFault> {
    let checked = match method {
        _ if !is_object(answer) => Err("it must be an object".to_owned()),
        "elicitation/create" => elicited(answer),
        "sampling/createMessage" => sampled(answer),
        "roots/list" => roots(answer),
        _ => Ok(()),
    };
    checked.map_err(|what| BridgeFault::Answer { method: brief(method), what })
}

fn elicited(answer: &[u8]) -> Result<(), String> {
    choice(answer, "action", &["accept", "cancel", "decline"])?;
    // Some clients write `null` for what is not there.
    if at(answer, &["content"]).is_none_or(|content| content == b"null") {
        return Ok(());
    }
    must(answer, "", "content", OBJECT)
}

fn sampled(answer: &[u8]) -> Result<(), String> {
    choice(answer, "role", &["assistant", "user"])?;
    must(answer, "", "model", TEXT)?;
    let content = at(answer, &["content"]).unwrap_or_default();
    if is_object(content) {
        return block(content, "content");
    }
    must(answer, "", "content", (b'[', "an object, or an array of them"))?;
    elements(content).enumerate().try_for_each(|(number, each)| block(each, &format!("content[{number}]")))
}

/// One block of content, at this place of the answer.
fn block(raw: &[u8], place: &str) -> Result<(), String> {
    let place = format!("{place}.");
    must(raw, &place, "type", TEXT)?;
    let kind = text_at(raw, &["type"]).unwrap_or_default();
    let known = BLOCKS.iter().find(|(known, _)| *known == kind).map(|(_, members)| *members).unwrap_or_default();
    known.iter().try_for_each(|(name, shape)| must(raw, &place, name, *shape))
}

fn roots(answer: &[u8]) -> Result<(), String> {
    must(answer, "", "roots", ARRAY)?;
    let roots = elements(at(answer, &["roots"]).unwrap_or_default());
    roots.enumerate().try_for_each(|(number, root)| must(root, &format!("roots[{number}]."), "uri", TEXT))
}

/// A member that must be there and of this shape. `place` is where in the answer its object stands.
fn must(raw: &[u8], place: &str, name: &str, (opening, shape): Shape) -> Result<(), String> {
    let fits = at(raw, &[name]).is_some_and(|value| value.first() == Some(&opening));
    if fits { Ok(()) } else { Err(format!("`{place}{name}` must be {shape}")) }
}

/// A member that must be one of these words.
fn choice(raw: &[u8], name: &str, words: &[&str]) -> Result<(), String> {
    let fits = text_at(raw, &[name]).is_some_and(|text| words.contains(&text.as_ref()));
    if fits { Ok(()) } else { Err(format!("`{name}` must be one of {}", words.join(", "))) }
}
