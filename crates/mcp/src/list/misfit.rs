//! Entries of lists that are none by the schema of the protocol. Official SDKs refuse a whole list for one of them.
//!
//! Looks at what these SDKs look at, once through: the members of an entry, of its annotations, icons and arguments, and
//! what stands at the top of its schemas. Never judges what a schema says beyond that.

mod moment;
#[cfg(test)]
mod tests;

use super::Entry;
use crate::{ListKind, text::unescape, walk::Walk};
use std::borrow::Cow;

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
    let mut check = Check { walk: Walk::new(entry.raw, 0), within: None, found: None };
    let is_tool = kind == ListKind::Tools;
    let (mut has_schema, mut has_name) = (!is_tool, matches!(kind, ListKind::Tools | ListKind::Prompts));
    let is_resource = !has_name;
    check.walk.open();
    while let Some(key) = check.walk.key() {
        match &*key {
            "inputSchema" if is_tool => {
                has_schema = true;
                check.schema("inputSchema", false);
            }
            "outputSchema" if is_tool => check.schema("outputSchema", true),
            "name" if is_resource => {
                has_name = true;
                check.text("name");
            }
            "title" | "description" => check.text(&key),
            "mimeType" if is_resource => check.text("mimeType"),
            "size" if kind == ListKind::Resources => check.value("size", is_size, "a whole number"),
            "_meta" => check.value("_meta", |value| value.starts_with(b"{"), "an object"),
            "annotations" if is_tool => check.hints(),
            "annotations" if is_resource => check.annotations(),
            // SPEC: 2026-07-28 has none, where SDKs look at what is no `null` all the same.
            "execution" if is_tool => check.execution(),
            "icons" => check.icons(),
            "arguments" if kind == ListKind::Prompts => check.arguments(),
            _ => check.pass(),
        }
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
    /// The member of the entry that is gone through.
    within: Option<&'static str>,
    found: Option<Misfit>,
}

/// Each reads the value that comes next, to its end.
impl Check<'_> {
    /// Of a tool.
    fn hints(&mut self) {
        self.members("annotations", false, |check, key| match key {
            "title" => check.text(key),
            "readOnlyHint" | "destructiveHint" | "idempotentHint" | "openWorldHint" => check.flag(key),
            _ => check.pass(),
        });
    }

    /// Of a resource or a template.
    fn annotations(&mut self) {
        self.members("annotations", false, |check, key| match key {
            "audience" => check.list(key, |value| is_one_of(value, &["user", "assistant"]), "a list of roles", false),
            "priority" => check.value(key, is_share, "a number from 0 to 1"),
            "lastModified" => check.value(
                key,
                |value| said(value).is_some_and(|said| moment::is_one(&said)),
                "a time with its offset (RFC 3339)",
            ),
            _ => check.pass(),
        });
    }

    fn execution(&mut self) {
        let is_legacy = self.walk.peek() == Some(b'n');
        self.members("execution", is_legacy, |check, key| match key {
            "taskSupport" => {
                let value = check.walk.value();
                let is_so = is_one_of(value, &["required", "optional", "forbidden"]);
                check.must(key, is_so, "\"required\", \"optional\" or \"forbidden\"", value == b"null");
            }
            _ => check.pass(),
        });
    }

    fn icons(&mut self) {
        self.entries("icons", "src", |check, key| match key {
            "src" | "mimeType" => check.text(key),
            "sizes" => check.list(key, is_text, "a list of texts", false),
            "theme" => {
                check.value(key, |value| is_one_of(value, &["light", "dark"]), "\"light\" or \"dark\"");
            }
            _ => check.pass(),
        });
    }

    /// Of a prompt.
    fn arguments(&mut self) {
        self.entries("arguments", "name", |check, key| match key {
            "name" | "description" => check.text(key),
            // The SDKs that look at it let `null` pass.
            "title" => check.value(key, |value| is_text(value) || value == b"null", "text"),
            "required" => check.flag(key),
            _ => check.pass(),
        });
    }

    /// In the modern era a schema of results may be any.
    fn schema(&mut self, name: &'static str, may_be_any: bool) {
        if !self.must(name, self.begins(b'{'), "an object", false) {
            return self.pass();
        }
        let mut is_object = false;
        self.within = Some(name);
        self.walk.open();
        while let Some(key) = self.walk.key() {
            match &*key {
                "$schema" => self.text("$schema"),
                "type" => is_object = is_one_of(self.walk.value(), &["object"]),
                "properties" if self.must("properties", self.begins(b'{'), "an object", true) => {
                    self.walk.open();
                    while let Some(property) = self.walk.key() {
                        // Before 2026-07-28 `true` and `false` are no schemas.
                        self.must(&property, self.begins(b'{'), "an object", true);
                        self.pass();
                    }
                }
                "required" => self.list("required", is_text, "a list of texts", true),
                _ => self.pass(),
            }
        }
        self.within = None;
        if !is_object {
            self.note(format!("`{name}` has no `type` that is \"object\""), may_be_any);
        }
    }

    /// An object that is a member of the entry. `each` reads its values.
    fn members(&mut self, name: &'static str, is_legacy: bool, mut each: impl FnMut(&mut Self, &str)) {
        if !self.must(name, self.begins(b'{'), "an object", is_legacy) {
            return self.pass();
        }
        self.within = Some(name);
        self.walk.open();
        while let Some(key) = self.walk.key() {
            each(self, &key);
        }
        self.within = None;
    }

    /// A list of objects that is a member of the entry. Each has the member `needed`; `each` reads their values.
    fn entries(&mut self, name: &'static str, needed: &str, mut each: impl FnMut(&mut Self, &str)) {
        if !self.must(name, self.begins(b'['), "a list", false) {
            return self.pass();
        }
        self.within = Some(name);
        self.walk.open_list();
        while self.walk.item() {
            if !self.begins(b'{') {
                self.note(format!("an entry of `{name}` is not an object"), false);
                self.pass();
                continue;
            }
            let mut is_whole = false;
            self.walk.open();
            while let Some(key) = self.walk.key() {
                is_whole |= key == needed;
                each(self, &key);
            }
            if !is_whole {
                self.note(format!("an entry of `{name}` has no `{needed}`"), false);
            }
        }
        self.within = None;
    }

    fn text(&mut self, name: &str) {
        self.value(name, is_text, "text");
    }

    fn flag(&mut self, name: &str) {
        self.value(name, |value| matches!(value, b"true" | b"false"), "`true` or `false`");
    }

    fn list(&mut self, name: &str, is_so: impl Fn(&[u8]) -> bool, what: &str, is_legacy: bool) {
        let mut is_list = self.begins(b'[');
        if is_list {
            self.walk.open_list();
            while self.walk.item() {
                is_list &= is_so(self.walk.value());
            }
        } else {
            self.pass();
        }
        self.must(name, is_list, what, is_legacy);
    }

    fn value(&mut self, name: &str, is_so: impl Fn(&[u8]) -> bool, what: &str) {
        let value = self.walk.value();
        self.must(name, is_so(value), what, false);
    }

    fn pass(&mut self) {
        self.walk.value();
    }

    fn begins(&self, with: u8) -> bool {
        self.walk.peek() == Some(with)
    }

    fn must(&mut self, name: &str, is_so: bool, what: &str, is_legacy: bool) -> bool {
        if !is_so {
            let within = self.within.map_or_else(String::new, |within| format!(" in `{within}`"));
            self.note(format!("`{name}`{within} is not {what}"), is_legacy);
        }
        is_so
    }

    fn note(&mut self, why: String, is_legacy: bool) {
        if self.found.as_ref().is_none_or(|found| found.is_legacy && !is_legacy) {
            self.found = Some(Misfit { why, is_legacy });
        }
    }
}

fn is_text(value: &[u8]) -> bool {
    value.starts_with(b"\"")
}

/// What a value says, however it is spelled. `None` if it is no text.
fn said(value: &[u8]) -> Option<Cow<'_, str>> {
    unescape(value.strip_prefix(b"\"")?.strip_suffix(b"\"")?)
}

fn is_one_of(value: &[u8], words: &[&str]) -> bool {
    said(value).is_some_and(|said| words.contains(&&*said))
}

/// A number, if it is one that floats can tell.
fn number(value: &[u8]) -> Option<f64> {
    std::str::from_utf8(value).ok()?.parse().ok().filter(|number: &f64| number.is_finite())
}

fn is_share(value: &[u8]) -> bool {
    number(value).is_some_and(|share| (0.0..=1.0).contains(&share))
}

/// Whether it is a whole number. One with a fraction or an exponent is if it is small enough to be sure of that.
fn is_size(value: &[u8]) -> bool {
    const SURE: f64 = 9e18;
    let is_plain = value.iter().all(|byte| matches!(byte, b'-' | b'0'..=b'9'));
    number(value).is_some_and(|size| is_plain || size.fract() == 0.0 && size.abs() < SURE)
}
