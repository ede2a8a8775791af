//! Parts of results that older revisions do not know.
//!
//! Members that a revision does not know stay: every revision allows more. What it would take for something else, or
//! refuse the whole result for, becomes what it knows.

use super::rewrite::{Fate, Rewrite, at, is_object, object, text_at};
use crate::{
    Revision, Span,
    param::{ANNOTATION, can_be_followed},
    splice::quote,
};

/// Makes the result of `method` at `span` one of `revision`.
pub(super) fn member(rewrite: &mut Rewrite<'_>, method: &str, name: &str, value: &Span, revision: Revision) -> Fate {
    match (method, name) {
        ("tools/list", "tools") => rewrite.array(value, |rewrite, tool| self::tool(rewrite, &tool, revision)),
        ("tools/call", "content") => rewrite.array(value, |rewrite, block| self::block(rewrite, &block, revision)),
        // Older revisions want an object, and the text beside it says the same (2025-11-25, server/tools,
        // "Structured Content").
        ("tools/call", "structuredContent") if !is_object(rewrite.raw(value)) => return Fate::Drop,
        ("prompts/get", "messages") => rewrite.array(value, |rewrite, message| {
            let content = |rewrite: &mut Rewrite<'_>, name: &str, value: &Span| {
                if name == "content" {
                    block(rewrite, value, revision);
                }
                Fate::Keep
            };
            rewrite.object(&message, content, &[]);
        }),
        _ => {}
    }
    Fate::Keep
}

/// Schemas of a tool: before 2026-07-28 both describe objects.
fn tool(rewrite: &mut Rewrite<'_>, span: &Span, revision: Revision) {
    let schema = |rewrite: &mut Rewrite<'_>, name: &str, value: &Span| match name {
        "outputSchema" if revision < Revision::V2025_06_18 => Fate::Keep,
        // A client refuses the whole list for one. Results of the tool lose what the schema describes as well.
        "outputSchema" if text_at(rewrite.raw(value), &["type"]).as_deref() != Some("object") => Fate::Drop,
        "inputSchema" | "outputSchema" => {
            properties(rewrite, value);
            Fate::Keep
        }
        _ => Fate::Keep,
    };
    rewrite.object(span, schema, &[]);
}

/// `true` and `false` are schemas that older revisions write as objects.
fn properties(rewrite: &mut Rewrite<'_>, schema: &Span) {
    let plain = |rewrite: &mut Rewrite<'_>, _: &str, value: &Span| match rewrite.raw(value) {
        b"true" => Fate::Become(b"{}".to_vec()),
        b"false" => Fate::Become(br#"{"not":{}}"#.to_vec()),
        _ => Fate::Keep,
    };
    let inner = |rewrite: &mut Rewrite<'_>, name: &str, value: &Span| {
        if name == "properties" {
            rewrite.object(value, plain, &[]);
        }
        Fate::Keep
    };
    rewrite.object(schema, inner, &[]);
}

/// A tool of a legacy server without annotations (`x-mcp-header`) for which a client of 2026-07-28 would have to leave it out:
/// they are of that revision, and the server does not mean them. Those that can be followed stay, and are held to.
pub(super) fn unannotated(rewrite: &mut Rewrite<'_>, tool: &Span) {
    if can_be_followed(rewrite.raw(tool)) {
        return;
    }
    let part = |rewrite: &mut Rewrite<'_>, name: &str, value: &Span| {
        if name == "inputSchema" {
            schema(rewrite, value);
        }
        Fate::Keep
    };
    rewrite.object(tool, part, &[]);
}

/// Takes the annotations out of a schema. Depth is bounded by that of the message.
fn schema(rewrite: &mut Rewrite<'_>, span: &Span) {
    let below = |rewrite: &mut Rewrite<'_>, name: &str, value: &Span| {
        match name {
            ANNOTATION => return Fate::Drop,
            // Data, not schemas.
            "const" | "default" | "enum" | "examples" => {}
            "properties" | "$defs" | "definitions" | "dependentSchemas" | "patternProperties" => {
                let named = |rewrite: &mut Rewrite<'_>, _: &str, value: &Span| {
                    schema(rewrite, value);
                    Fate::Keep
                };
                rewrite.object(value, named, &[]);
            }
            _ if is_object(rewrite.raw(value)) => schema(rewrite, value),
            _ if rewrite.raw(value).starts_with(b"[") => {
                rewrite.array(value, |rewrite, each| schema(rewrite, &each));
            }
            _ => {}
        }
        Fate::Keep
    };
    rewrite.object(span, below, &[]);
}

/// A block of content of a kind that came later becomes one that was there.
fn block(rewrite: &mut Rewrite<'_>, span: &Span, revision: Revision) {
    let raw = rewrite.raw(span);
    let kind = text_at(raw, &["type"]);
    let replacement = match kind.as_deref() {
        Some("audio") if revision < Revision::V2025_03_26 => audio(raw),
        Some("resource_link") if revision < Revision::V2025_06_18 => link(raw),
        _ => None,
    };
    if let Some(text) = replacement {
        rewrite.replace(span.clone(), text);
    }
}

/// The sound as an embedded file: nothing of it is lost.
fn audio(raw: &[u8]) -> Option<Vec<u8>> {
    let (data, kind) = (at(raw, &["data"])?, at(raw, &["mimeType"])?);
    let resource = object(&[("uri", b"\"urn:mcp:audio\""), ("mimeType", kind), ("blob", data)]);
    Some(object(&[("type", b"\"resource\""), ("resource", &resource)]))
}

/// The link as text.
fn link(raw: &[u8]) -> Option<Vec<u8>> {
    let (name, uri) = (text_at(raw, &["name"])?, text_at(raw, &["uri"])?);
    Some(object(&[("type", b"\"text\""), ("text", quote(&format!("{name}: {uri}")).as_bytes())]))
}

#[cfg(test)]
mod tests {
    use super::super::downward::tool;

    #[test]
    fn annotations_that_cannot_be_followed_go_and_what_is_only_called_so_stays() {
        let good = r#"{"inputSchema":{"type":"object","properties":{"a":{"type":"string","x-mcp-header":"A"}}}}"#;
        for (from, to) in [
            (r#"{"name":"a"}"#, r#"{"name":"a"}"#),
            (good, good),
            (r#"{"inputSchema":true,"x-mcp-header":1}"#, r#"{"inputSchema":true,"x-mcp-header":1}"#),
            (
                r#"{"inputSchema":{"x-mcp-header":"A","properties":{"x-mcp-header":{"type":"number","x-mcp-header":""},"b":{"default":{"x-mcp-header":1}}}}}"#,
                r#"{"inputSchema":{"properties":{"x-mcp-header":{"type":"number"},"b":{"default":{"x-mcp-header":1}}}}}"#,
            ),
            (
                r#"{"inputSchema":{"anyOf":[{"x-mcp-header":"A"},true,[{"x-mcp-h\u0065ader":"A"}]],"not":{"a":1, "x-mcp-header":"A"}}}"#,
                r#"{"inputSchema":{"anyOf":[{},true,[{"x-mcp-h\u0065ader":"A"}]],"not":{"a":1}}}"#,
            ),
            (
                r#"{"inputSchema":{"$defs":{"a":{"x-mcp-h\u0065ader":"A","type":"string"}}}}"#,
                r#"{"inputSchema":{"$defs":{"a":{"type":"string"}}}}"#,
            ),
        ] {
            assert_eq!(tool(from.as_bytes()), to, "{from}");
        }
    }
}
