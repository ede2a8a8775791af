//! The schema of a tool's arguments: compiled once, within bounds, and held against arguments within bounds.
//!
//! Whoever wrote the schema, and whoever sends arguments, may mean no good; what they can make a worker do is bounded here.

use super::{
    expression::{self, Expressions},
    weigh::{Weight, weigh},
};
use jsonschema::{Draft, PatternOptions, ValidationError, Validator};
use serde_json::Value;
use std::sync::Arc;

/// The longest name of a dialect that is told, in characters.
const DIALECT: usize = 200;
/// Faults of one call that are told.
const FAULTS: usize = 16;
/// The longest place or problem of one that is told, in characters.
const TOLD: usize = 300;
/// Steps of a schema, times values of the arguments, that are taken.
const WORK: u64 = 50_000_000;
/// The same where faults are looked for, which says each of them first.
const SEARCH: u64 = 1_000_000;

/// A schema that arguments can be held against.
pub struct Schema {
    validator: Validator,
    weight: Weight,
}

/// Why arguments are not taken.
pub(crate) enum Misfit {
    /// Where they do not fit, by JSON pointer, and why.
    Faults(Vec<(String, String)>),
    /// They do not fit, but to say where would take too long.
    Somewhere,
    /// It would take too long to say whether they fit.
    TooMuch,
}

/// How large arguments are.
#[derive(Default)]
struct Size {
    /// Values, and 64 bytes of text each for one more.
    values: u64,
    /// Values, each as often as a schema that begins again may come to it.
    ways: u64,
    /// Bytes of the names of members.
    names: u64,
}

impl Schema {
    /// A schema in its own dialect. Patterns run on the linear engine, and `$ref` never leaves the schema. Formats and
    /// encodings are annotations in 2020-12, and in the older dialects nobody has to check them.
    pub(super) fn new(schema: &Value) -> Result<Self, String> {
        let draft = dialect(schema)?;
        let (weight, expressions) = weigh(schema, draft)?;
        let validator = compiled(schema, draft, Arc::new(expressions))?;
        Ok(Self { validator, weight })
    }

    /// Whether arguments fit.
    pub fn is_valid(&self, arguments: &Value) -> bool {
        self.check(arguments, usize::MAX).is_ok()
    }

    /// Holds arguments, of so many bytes at most, against the schema.
    pub(crate) fn check(&self, arguments: &Value, bytes: usize) -> Result<(), Misfit> {
        if self.too_much(arguments, bytes) {
            return Err(Misfit::TooMuch);
        }
        match expression::spending(|| self.validator.is_valid(arguments)) {
            Some(true) => Ok(()),
            Some(false) => Err(self.faults(arguments)),
            None => Err(Misfit::TooMuch),
        }
    }

    fn too_much(&self, arguments: &Value, bytes: usize) -> bool {
        let steps = self.weight.steps.saturating_mul(self.weight.again.max(1));
        let names = self.weight.names.saturating_mul(self.weight.again.max(1));
        // There are never more values than bytes: most calls need not be counted.
        let bytes = bytes as u64;
        if steps.saturating_mul(bytes) <= WORK && names.saturating_mul(bytes) <= expression::BUDGET {
            return false;
        }
        let size = size(arguments, 1, 1);
        steps.saturating_mul(size.values) > WORK || names.saturating_mul(size.names) > expression::BUDGET
    }

    fn faults(&self, arguments: &Value) -> Misfit {
        if self.weight.steps.saturating_mul(size(arguments, 1, self.weight.again.max(1)).ways) > SEARCH {
            return Misfit::Somewhere;
        }
        let faults = expression::spending(|| {
            let faults = self.validator.iter_errors(arguments).take(FAULTS);
            // SECURITY: the masked form names types and constraints, never the caller's values.
            let told = |fault: ValidationError<'_>| {
                (told(&fault.instance_path().to_string()), told(&fault.masked().to_string()))
            };
            faults.map(told).collect()
        });
        faults.map_or(Misfit::Somewhere, Misfit::Faults)
    }
}

/// As much of it as is told: names of members are as long, and as many, as whoever sends them likes.
fn told(text: &str) -> String {
    let mut told: String = text.chars().take(TOLD).collect();
    if told.len() < text.len() {
        told.push('…');
    }
    told
}

fn compiled(schema: &Value, draft: Draft, expressions: Arc<Expressions>) -> Result<Validator, String> {
    jsonschema::options()
        .with_draft(draft)
        .with_pattern_options(PatternOptions::regex())
        .with_keyword("pattern", move |_, pattern, _| expressions.keyword(pattern))
        .should_validate_formats(false)
        .without_content_media_type_support("application/json")
        .without_content_encoding_support("base64")
        .without_content_encoding_support("base64url")
        .offline()
        .build(schema)
        .map_err(|fault| fault.to_string())
}

/// The dialect that a schema names, or the one of MCP.
fn dialect(schema: &Value) -> Result<Draft, String> {
    // SPEC: whatever names none is of 2020-12 (2025-11-25, "JSON Schema usage").
    let Some(named) = schema.get("$schema") else { return Ok(Draft::Draft202012) };
    match named.as_str().map_or(Draft::Unknown, Draft::from_schema_uri) {
        Draft::Unknown => {
            let named: String = named.to_string().chars().take(DIALECT).collect();
            Err(format!("its `$schema` is {named}; known are 2020-12, 2019-09, draft-07, draft-06 and draft-04"))
        }
        known => Ok(known),
    }
}

/// How large a value is, to which a schema comes in `ways` ways, and to what is within it `again` times as many. Its depth is
/// bounded.
fn size(value: &Value, ways: u64, again: u64) -> Size {
    let mut all = Size { values: 1, ways, names: 0 };
    let within = ways.saturating_mul(again);
    let mut add = |size: Size| {
        all.values += size.values;
        all.ways = all.ways.saturating_add(size.ways);
        all.names += size.names;
    };
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
        Value::String(text) => add(Size { values: text.len() as u64 / 64, ways: 0, names: 0 }),
        Value::Array(items) => items.iter().for_each(|item| add(size(item, within, again))),
        Value::Object(members) => members.iter().for_each(|(name, value)| {
            add(size(value, within, again));
            add(Size { values: 0, ways: 0, names: name.len() as u64 });
        }),
    }
    all
}
