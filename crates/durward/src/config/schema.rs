//! The JSON Schema of the configuration, for editors.
//!
//! Made from the table of keys, so that an editor and the gateway cannot disagree on what may be written.

use super::key::{Key, ROOT, Shape, Word};
use serde_json::{Map, Value, json};

/// The whole schema.
pub(crate) fn schema() -> Value {
    let mut schema = describe(&ROOT);
    if let Value::Object(members) = &mut schema {
        members.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
        members.insert("title".to_owned(), json!("durward.yaml"));
    }
    schema
}

fn describe(shape: &Shape) -> Value {
    match shape {
        Shape::Switch => json!({ "type": "boolean" }),
        Shape::Count(least, most) => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Shape::Size(..) => {
            json!({ "type": ["string", "integer"], "pattern": "^[0-9]+ ?(B|kB|KB|KiB|MB|MiB|GB|GiB)?$" })
        }
        Shape::Duration => json!({ "type": "string", "pattern": "^[0-9]+ ?(ms|s|m|min|h|d)$" }),
        Shape::Rate => json!({ "type": "string", "pattern": "^[1-9][0-9]* ?/ ?.+$" }),
        Shape::Url => json!({ "type": "string", "format": "uri", "pattern": "^https?://" }),
        Shape::Claim => json!({ "type": "string", "pattern": "^claim:." }),
        Shape::Listen => json!({ "type": "string", "pattern": "^unix:.|:[0-9]+$" }),
        Shape::Address => json!({ "type": "string", "pattern": ":[0-9]+$" }),
        Shape::Network | Shape::Text | Shape::Hidden => json!({ "type": "string", "minLength": 1 }),
        Shape::Choice(choices) => json!({ "enum": choices }),
        Shape::Word(word) => named(*word),
        Shape::List(inner) => json!({ "type": "array", "items": describe(inner) }),
        Shape::Some(inner) => {
            let inner = describe(inner);
            json!({ "anyOf": [inner, { "type": "array", "items": inner }] })
        }
        Shape::Filled(inner, ..) => filled(describe(inner)),
        Shape::Map(word, inner) => {
            json!({ "type": "object", "propertyNames": named(*word), "additionalProperties": describe(inner) })
        }
        Shape::Table(keys) => table(keys),
    }
}

/// The same, where a list has at least one member.
fn filled(mut value: Value) -> Value {
    if let Some(Value::Array(choices)) = value.get_mut("anyOf") {
        for choice in choices {
            *choice = filled(choice.take());
        }
    } else if value.get("type") == Some(&json!("array"))
        && let Value::Object(members) = &mut value
    {
        members.insert("minItems".to_owned(), json!(1));
    }
    value
}

fn table(keys: &[Key]) -> Value {
    let mut properties = Map::new();
    for key in keys {
        let mut value = describe(&key.shape);
        if let Value::Object(members) = &mut value {
            members.insert("description".to_owned(), json!(key.about));
        }
        properties.insert(key.name.to_owned(), value);
    }
    let required: Vec<_> = keys.iter().filter(|key| key.required).map(|key| key.name).collect();
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

fn named(word: Word) -> Value {
    match word {
        Word::Agent | Word::Server | Word::Environment | Word::Secret => {
            json!({ "type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$" })
        }
        Word::Variable => json!({ "type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$" }),
        Word::Target => json!({ "type": "string", "pattern": "/" }),
        Word::Role | Word::Header | Word::Glob => json!({ "type": "string", "minLength": 1 }),
    }
}
