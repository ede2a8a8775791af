//! Policy files as trees whose every node knows its place.
//!
//! JSON and YAML become one shape here. Knows nothing of rules.

use crate::{Place, PolicyFault, Source, nearest::nearest, syntax};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;
use serde_saphyr::{Location, Spanned};
use std::fmt;

/// The largest file, in bytes.
const LARGEST: usize = 4 * 1024 * 1024;

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) datum: Datum,
    pub(crate) place: Option<Place>,
}

/// A value.
#[derive(Debug, Clone)]
pub(crate) enum Datum {
    Null,
    Bool(bool),
    Number(serde_json::Number),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A key and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) name: String,
    pub(crate) place: Option<Place>,
}

/// Reads one file. What keeps it from being read is one fault.
pub(crate) fn read(source: &Source) -> Result<Node, Vec<PolicyFault>> {
    let fault = |place, cause: String, fix: &str| {
        let mut reader = Reader::of(&source.name);
        reader.fault(place, cause, fix);
        reader.faults
    };
    if source.text.len() > LARGEST {
        return Err(fault(None, format!("the file is larger than {LARGEST} bytes"), "split it"));
    }
    let json = match source.name.rsplit_once('.') {
        Some((_, "json")) => true,
        Some((_, "yaml" | "yml")) => false,
        Some(_) | None => source.text.trim_start().starts_with('{'),
    };
    if json && let Err(error) = serde_json::from_str::<IgnoredAny>(&source.text) {
        let place = Place { line: error.line() as u64, column: error.column() as u64 };
        return Err(fault(Some(place), format!("this is not JSON: {error}"), "correct the syntax"));
    }
    if let Some(((line, column), (cause, fix))) = syntax::tag(&source.text) {
        return Err(fault(Some(Place { line, column }), cause, fix));
    }
    // JSON is YAML, and this reader tells places. An agent may be called `y` or `no`.
    let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
    serde_saphyr::from_str_with_options(&source.text, options).map_err(|error| {
        let place = error.location().as_ref().and_then(place);
        let (cause, fix) = syntax::reading(&error);
        fault(place, cause, fix)
    })
}

impl Node {
    /// What kind of value it is, for messages.
    pub(crate) const fn kind(&self) -> &'static str {
        match &self.datum {
            Datum::Null => "nothing",
            Datum::Bool(_) => "true or false",
            Datum::Number(_) => "a number",
            Datum::Text(_) => "a text",
            Datum::List(_) => "a list",
            Datum::Map(_) => "a map",
        }
    }

    /// The value as JSON.
    pub(crate) fn to_json(&self) -> Value {
        match &self.datum {
            Datum::Null => Value::Null,
            Datum::Bool(value) => Value::Bool(*value),
            Datum::Number(value) => Value::Number(value.clone()),
            Datum::Text(text) => Value::String(text.clone()),
            Datum::List(values) => Value::Array(values.iter().map(Self::to_json).collect()),
            Datum::Map(members) => {
                Value::Object(members.iter().map(|(key, value)| (key.name.clone(), value.to_json())).collect())
            }
        }
    }
}

/// Collects faults while a tree is read, so that one run reports them all.
pub(crate) struct Reader<'s> {
    pub(crate) file: &'s str,
    /// The rule that is being read.
    pub(crate) rule: Option<String>,
    /// The case that is being read.
    pub(crate) case: Option<usize>,
    pub(crate) faults: Vec<PolicyFault>,
}

impl<'s> Reader<'s> {
    /// Before anything of `file` is read.
    pub(crate) const fn of(file: &'s str) -> Self {
        Self { file, rule: None, case: None, faults: Vec::new() }
    }

    pub(crate) fn fault(&mut self, place: Option<Place>, cause: impl Into<String>, fix: impl Into<String>) {
        self.faults.push(PolicyFault {
            file: self.file.to_owned(),
            rule: self.rule.clone(),
            case: self.case,
            place,
            cause: cause.into(),
            fix: fix.into(),
        });
    }

    /// The members of a map; every key that is not `known` is a fault.
    pub(crate) fn members<'n>(&mut self, node: &'n Node, what: &str, known: &[&str]) -> Option<Members<'n>> {
        let Datum::Map(members) = &node.datum else {
            self.fault(node.place, format!("{what} is {}, not a map", node.kind()), "see the guide to policies");
            return None;
        };
        for (key, _) in members {
            if !known.contains(&key.name.as_str()) {
                self.fault(
                    key.place,
                    format!("{what} has no key `{}`", key.name),
                    nearest(&key.name, known.iter().copied()),
                );
            }
        }
        Some(Members { members, place: node.place })
    }

    /// A text.
    pub(crate) fn text<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n str> {
        match &node.datum {
            Datum::Text(text) if !text.is_empty() => Some(text),
            Datum::Text(_) => {
                self.fault(node.place, format!("`{what}` is empty"), "write a text, or leave the key out");
                None
            }
            Datum::Null | Datum::Bool(_) | Datum::Number(_) | Datum::List(_) | Datum::Map(_) => {
                self.fault(node.place, format!("`{what}` is {}, not a text", node.kind()), "put it in quotes");
                None
            }
        }
    }

    /// A list of texts, each with its place.
    pub(crate) fn texts<'n>(&mut self, node: &'n Node, what: &str) -> Vec<(&'n str, Option<Place>)> {
        let Datum::List(values) = &node.datum else {
            self.fault(node.place, format!("`{what}` is {}, not a list", node.kind()), "write a list of texts");
            return Vec::new();
        };
        if values.is_empty() {
            self.fault(node.place, format!("`{what}` is an empty list"), "leave the key out to mean any");
        }
        values.iter().filter_map(|value| Some((self.text(value, what)?, value.place))).collect()
    }

    /// One text, or a list of them.
    pub(crate) fn text_or_texts<'n>(&mut self, node: &'n Node, what: &str) -> Vec<(&'n str, Option<Place>)> {
        match &node.datum {
            Datum::List(_) => self.texts(node, what),
            Datum::Null | Datum::Bool(_) | Datum::Number(_) | Datum::Text(_) | Datum::Map(_) => {
                self.text(node, what).map(|text| (text, node.place)).into_iter().collect()
            }
        }
    }
}

/// The members of a map.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Members<'n> {
    members: &'n [(Key, Node)],
    pub(crate) place: Option<Place>,
}

impl<'n> Members<'n> {
    /// The member of that name.
    pub(crate) fn get(&self, name: &str) -> Option<&'n Node> {
        self.members.iter().find(|(key, _)| key.name == name).map(|(_, node)| node)
    }

    /// The member of that name, or a fault.
    pub(crate) fn require(&self, reader: &mut Reader<'_>, name: &str, fix: &str) -> Option<&'n Node> {
        let found = self.get(name);
        if found.is_none() {
            reader.fault(self.place, format!("`{name}` is missing"), fix);
        }
        found
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Datum>::deserialize(deserializer)?;
        Ok(Self { datum: spanned.value, place: place(&spanned.referenced) })
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<String>::deserialize(deserializer)?;
        Ok(Self { name: spanned.value, place: place(&spanned.referenced) })
    }
}

impl<'de> Deserialize<'de> for Datum {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DatumVisitor)
    }
}

struct DatumVisitor;

impl<'de> Visitor<'de> for DatumVisitor {
    type Value = Datum;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value that JSON has too")
    }

    fn visit_unit<E>(self) -> Result<Datum, E> {
        Ok(Datum::Null)
    }

    fn visit_none<E>(self) -> Result<Datum, E> {
        Ok(Datum::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Datum, D::Error> {
        Datum::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Datum, E> {
        Ok(Datum::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Datum, E> {
        Ok(Datum::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Datum, E> {
        Ok(Datum::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Datum, E> {
        let number = serde_json::Number::from_f64(value);
        number.map(Datum::Number).ok_or_else(|| E::custom("a number that is not finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Datum, E> {
        Ok(Datum::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Datum, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = values.next_element()? {
            list.push(value);
        }
        Ok(Datum::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Datum, A::Error> {
        let mut map = Vec::new();
        while let Some(member) = members.next_entry()? {
            map.push(member);
        }
        Ok(Datum::Map(map))
    }
}

fn place(location: &Location) -> Option<Place> {
    (location.line() > 0).then(|| Place { line: location.line(), column: location.column() })
}
