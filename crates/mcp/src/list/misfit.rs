//! Entries of lists that are none by the schema of the protocol. Official SDKs refuse a whole list for one of them.
//!
//! Looks at what stands at the top of an entry and of its schemas, once through. Never judges what a schema says beyond that.

use super::Entry;
use crate::{ListKind, walk::Walk};

/// What is wrong with an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// For whoever runs the server.
    pub why: String,
    /// It is none in the legacy era alone.
    pub is_legacy: bool,
}

/// Why a client of some revision would refuse the list that holds this entry. What is one in both eras comes first.
pub fn misfit(entry: &Entry<'_>, kind: ListKind) -> Option<Misfit> {
    let mut check = Check { walk: Walk::new(entry.raw, 0), found: None };
    let is_tool = kind == ListKind::Tools;
    let (mut has_schema, mut has_name) = (!is_tool, matches!(kind, ListKind::Tools | ListKind::Prompts));
    let is_resource = !has_name;
    check.walk.open();
    while let Some(key) = check.walk.key() {
        let (begins, what, is_legacy): (&[u8], _, _) = match &*key {
            "inputSchema" if is_tool => {
                has_schema = true;
                check.schema("inputSchema", false);
                continue;
            }
            "outputSchema" if is_tool => {
                check.schema("outputSchema", true);
                continue;
            }
            "name" if is_resource => {
                has_name = true;
                (b"\"", "text", false)
            }
            "title" | "description" => (b"\"", "text", false),
            "mimeType" if is_resource => (b"\"", "text", false),
            "size" if kind == ListKind::Resources => (b"-0123456789", "a number", false),
            "_meta" => (b"{", "an object", false),
            "annotations" if kind != ListKind::Prompts => (b"{", "an object", false),
            "execution" if is_tool => (b"{", "an object", true),
            "icons" => (b"[", "a list", false),
            "arguments" if kind == ListKind::Prompts => (b"[", "a list", false),
            _ => {
                check.walk.value();
                continue;
            }
        };
        check.is(&key, begins, what, is_legacy);
        check.walk.value();
    }
    if !has_schema {
        check.note("it has no `inputSchema`".to_owned(), false);
    }
    if !has_name {
        check.note("it has no `name`".to_owned(), false);
    }
    check.found
}

struct Check<'a> {
    walk: Walk<'a>,
    found: Option<Misfit>,
}

impl Check<'_> {
    /// Whether the value that comes next begins like what it has to be.
    fn is(&mut self, name: &str, begins: &[u8], what: &str, is_legacy: bool) -> bool {
        let is_so = self.walk.peek().is_some_and(|byte| begins.contains(&byte));
        if !is_so {
            self.note(format!("`{name}` is not {what}"), is_legacy);
        }
        is_so
    }

    /// A schema, which comes next. In the modern era one of results may be any.
    fn schema(&mut self, name: &str, may_be_any: bool) {
        if !self.is(name, b"{", "an object", false) {
            self.walk.value();
            return;
        }
        let mut is_object = false;
        self.walk.open();
        while let Some(key) = self.walk.key() {
            match &*key {
                "type" => is_object = self.walk.value() == br#""object""#,
                "properties" if self.is("properties", b"{", "an object", true) => {
                    self.walk.open();
                    while let Some(property) = self.walk.key() {
                        // Before 2026-07-28 `true` and `false` are no schemas.
                        self.is(&property, b"{", "an object", true);
                        self.walk.value();
                    }
                }
                "required" => {
                    self.is("required", b"[", "a list", true);
                    self.walk.value();
                }
                _ => drop(self.walk.value()),
            }
        }
        if !is_object {
            self.note(format!("`{name}` has no `type` that is \"object\""), may_be_any);
        }
    }

    fn note(&mut self, why: String, is_legacy: bool) {
        if self.found.as_ref().is_none_or(|found| found.is_legacy && !is_legacy) {
            self.found = Some(Misfit { why, is_legacy });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Body, Limits, list, scan};

    fn judged(kind: ListKind, entry: &str) -> Option<Misfit> {
        let text = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"{}":[{entry}]}}}}"#, kind.member());
        let Ok(Body::Single(message)) = scan(text.into(), &Limits::default()) else { unreachable!("{entry}") };
        misfit(list::entries(&message, kind).unwrap().first().unwrap(), kind)
    }

    #[test]
    fn what_sdks_refuse_a_list_for_is_found_and_nothing_else() {
        use ListKind::{Prompts, Resources, Templates, Tools};
        let fits = [
            (Tools, r#"{"name":"a","inputSchema":{"type":"object"}}"#),
            (
                Tools,
                r#"{ "inputSchema" : { "x":[{"type":1}], "properties" : { "a":{"type":["string"]} , "type" : {} } , "required":["a"] , "type" : "object" } , "name" : "a" , "size":null }"#,
            ),
            (
                Tools,
                r#"{"name":"a","inputSchema":{"type":"object","properties":{}},"outputSchema":{"type":"object"},"title":"","annotations":{},"icons":[],"_meta":{},"execution":{},"description":"\"}"}"#,
            ),
            (Prompts, r#"{"name":"a","inputSchema":1,"arguments":[{"name":"b"}]}"#),
            (Resources, r#"{"uri":"a:b","name":"b","size":-1,"mimeType":"c"}"#),
            (Templates, r#"{"uriTemplate":"a:{b}","name":"b","size":"any"}"#),
        ];
        for (kind, entry) in fits {
            assert_eq!(judged(kind, entry), None, "{entry}");
        }
        let misfits = [
            (Tools, r#"{"name":"a"}"#, "it has no `inputSchema`", false),
            (Tools, r#"{"name":"a","inputSchema":null}"#, "`inputSchema` is not an object", false),
            (Tools, r#"{"name":"a","inputSchema":{}}"#, "`inputSchema` has no `type` that is \"object\"", false),
            (
                Tools,
                r#"{"name":"a","inputSchema":{"properties":{"type":{"type":"object"}}}}"#,
                "`inputSchema` has no `type` that is \"object\"",
                false,
            ),
            (
                Tools,
                r#"{"name":"a","inputSchema":{"type":["object"]}}"#,
                "`inputSchema` has no `type` that is \"object\"",
                false,
            ),
            (
                Tools,
                r#"{"name":"a","inputSchema":{"type":"object","properties":{"b":true}}}"#,
                "`b` is not an object",
                true,
            ),
            (
                Tools,
                r#"{"name":"a","inputSchema":{"type":"object","required":null}}"#,
                "`required` is not a list",
                true,
            ),
            (
                Tools,
                r#"{"name":"a","inputSchema":{"type":"object"},"outputSchema":{"type":"array"}}"#,
                "`outputSchema` has no `type` that is \"object\"",
                true,
            ),
            (Tools, r#"{"name":"a","outputSchema":{},"inputSchema":1}"#, "`inputSchema` is not an object", false),
            (
                Tools,
                r#"{"name":"a","inputSchema":{"type":"object"},"description":null}"#,
                "`description` is not text",
                false,
            ),
            (Prompts, r#"{"name":"a","arguments":{}}"#, "`arguments` is not a list", false),
            (Resources, r#"{"uri":"a:b"}"#, "it has no `name`", false),
            (Resources, r#"{"uri":"a:b","name":1}"#, "`name` is not text", false),
            (Templates, r#"{"uriTemplate":"a:b","name":"c","mimeType":null}"#, "`mimeType` is not text", false),
        ];
        for (kind, entry, why, is_legacy) in misfits {
            assert_eq!(judged(kind, entry), Some(Misfit { why: why.to_owned(), is_legacy }), "{entry}");
        }
    }
}
