//! What a server asks of a client: elicitation, sampling, roots, as requests of their own (legacy) or as entries of a
//! result (modern).

use super::{
    BridgeFault, brief,
    rewrite::{Fate, Rewrite, at, is_object, object, text_at, without},
};
use crate::{Revision, Span, key, splice::quote, walk::Walk};
use bytes::Bytes;

/// Params of a modern question for a client of a legacy `revision`. `id` is the raw id of the request that asks it.
pub(super) fn for_legacy(id: &str, method: &str, params: &[u8], revision: Revision) -> Result<Bytes, BridgeFault> {
    let mut rewrite = Rewrite::new(params);
    let mut fault = None;
    match method {
        "elicitation/create" if text_at(params, &["mode"]).as_deref() == Some("url") => address(&mut rewrite, id),
        "elicitation/create" if revision < Revision::V2025_11_25 => fault = form(&mut rewrite),
        "sampling/createMessage" if revision < Revision::V2025_11_25 => fault = sampling(&mut rewrite, revision),
        _ => {}
    }
    match fault {
        Some(why) => Err(BridgeFault::CannotAsk { method: brief(method), why }),
        None => Ok(rewrite.finish()),
    }
}

/// A legacy client learns under this id that the page was dealt with. Nothing in the modern era says so: the retry does.
fn address(rewrite: &mut Rewrite<'_>, id: &str) {
    let id = quote(&text_at(id.as_bytes(), &[]).unwrap_or(id.into()));
    let fate =
        |_: &mut Rewrite<'_>, name: &str, _: &Span| if name == "elicitationId" { Fate::Drop } else { Fate::Keep };
    rewrite.object(&rewrite.whole(), fate, &[("elicitationId", id.as_bytes())]);
}

/// Forms of 2025-06-18 have no lists, and choices with titles are written otherwise.
fn form(rewrite: &mut Rewrite<'_>) -> Option<&'static str> {
    let mut fault = None;
    let mut field = |rewrite: &mut Rewrite<'_>, _: &str, value: &Span| {
        let raw = rewrite.raw(value);
        if text_at(raw, &["type"]).as_deref() == Some("array") {
            fault = Some("its revision knows no choice of several values");
        } else if let Some(choices) = at(raw, &["oneOf"]) {
            let (values, titles) = (column(choices, "const"), column(choices, "title"));
            let add: [(&str, &[u8]); 2] = [("enum", &values), ("enumNames", &titles)];
            let fate = |_: &mut Rewrite<'_>, name: &str, _: &Span| match name {
                "oneOf" | "enum" | "enumNames" => Fate::Drop,
                _ => Fate::Keep,
            };
            rewrite.object(value, fate, &add);
        }
        Fate::Keep
    };
    let mut schema = |rewrite: &mut Rewrite<'_>, name: &str, value: &Span| {
        if name == "properties" {
            rewrite.object(value, &mut field, &[]);
        }
        Fate::Keep
    };
    let params = |rewrite: &mut Rewrite<'_>, name: &str, value: &Span| match name {
        "mode" => Fate::Drop,
        "requestedSchema" => {
            rewrite.object(value, &mut schema, &[]);
            Fate::Keep
        }
        _ => Fate::Keep,
    };
    rewrite.object(&rewrite.whole(), params, &[]);
    fault
}

/// The strings called `name` of the objects in an array, as an array.
fn column(raw: &[u8], name: &str) -> Vec<u8> {
    let mut walk = Walk::new(raw, 0);
    let mut out = vec![b'['];
    while let Some(element) = walk.element() {
        if out.len() > 1 {
            out.push(b',');
        }
        let element = raw.get(element).unwrap_or_default();
        out.extend_from_slice(at(element, &[name]).unwrap_or(b"\"\""));
    }
    out.push(b']');
    out
}

/// Messages of older revisions hold one block of content, and those that came later are no content there.
fn sampling(rewrite: &mut Rewrite<'_>, revision: Revision) -> Option<&'static str> {
    let mut fault = None;
    let params = |rewrite: &mut Rewrite<'_>, name: &str, value: &Span| {
        if name == "messages" {
            rewrite.array(value, |rewrite, message| fault = fault.or(sampled(rewrite, &message, revision)));
        }
        Fate::Keep
    };
    rewrite.object(&rewrite.whole(), params, &[]);
    fault
}

/// One message of several blocks becomes as many messages of the same role.
fn sampled(rewrite: &mut Rewrite<'_>, message: &Span, revision: Revision) -> Option<&'static str> {
    let raw = rewrite.raw(message);
    let content = at(raw, &["content"]).unwrap_or_default();
    let known = |block: &[u8]| match text_at(block, &["type"]).as_deref() {
        Some("text" | "image") => true,
        Some("audio") => revision >= Revision::V2025_03_26,
        _ => false,
    };
    let unknown = Some("its revision knows no such content");
    if is_object(content) {
        return if known(content) { None } else { unknown };
    }
    let mut walk = Walk::new(content, 0);
    let mut messages: Vec<Vec<u8>> = Vec::new();
    while let Some(block) = walk.element() {
        let block = content.get(block).unwrap_or_default();
        if !known(block) {
            return unknown;
        }
        messages.push(object(&[("role", at(raw, &["role"]).unwrap_or_default()), ("content", block)]));
    }
    if messages.is_empty() {
        return Some("one of its messages is empty");
    }
    rewrite.replace(message.clone(), messages.join(&b','));
    None
}

/// Params of a legacy question for a modern client.
pub(super) fn for_modern(params: &[u8]) -> Bytes {
    let mut rewrite = Rewrite::new(params);
    let fate = |rewrite: &mut Rewrite<'_>, name: &str, value: &Span| match name {
        // Ids are of the legacy era, and so is a question that is a task.
        "elicitationId" | "task" => Fate::Drop,
        "_meta" => without(rewrite, value, &[key::PROGRESS_TOKEN, key::RELATED_TASK], &[]),
        _ => Fate::Keep,
    };
    rewrite.object(&rewrite.whole(), fate, &[]);
    rewrite.finish()
}
