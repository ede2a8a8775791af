//! The configuration as it is understood, for people and programs: defaults filled in, nothing secret.
//!
//! It is shown as JSON by the keys of the file, which YAML is a superset of: what is shown can be read again.

use super::{settings::Settings, veil};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;
use std::{fmt, path::Path};

/// What stands for a value that is not shown.
pub(super) const HIDDEN: &str = "[hidden]";

/// Keys whose texts are paths, or may be.
const PATHS: [&str; 9] = ["listen", "data", "policies", "certificate", "key", "ca", "socket", "directory", "file"];

/// A setting and those below it. Unlike JSON's own tree it keeps an order that counts: that of `tools`.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Shown {
    One(Value),
    List(Vec<Self>),
    Table(Vec<(String, Self)>),
}

/// Every setting by its name, as text. What looks like a secret is hidden, whatever it is called.
pub(crate) fn text(settings: &Settings) -> serde_json::Result<String> {
    serde_json::to_string_pretty(&show(settings)?)
}

/// The same as a tree.
pub(super) fn show(settings: &Settings) -> serde_json::Result<Shown> {
    let mut shown = whole(settings)?;
    // Paths in the file begin at its folder, and its names are none of ours.
    hide(&mut shown, &settings.policies.base);
    Ok(shown)
}

/// The same with what `show` hides, for comparing. SECURITY: not to be shown.
pub(super) fn whole(settings: &Settings) -> serde_json::Result<Shown> {
    serde_json::from_str(&serde_json::to_string(settings)?)
}

fn hide(shown: &mut Shown, base: &Path) {
    match shown {
        Shown::One(Value::String(text)) if veil::looks_secret(text) => HIDDEN.clone_into(text),
        Shown::One(_) => {}
        Shown::List(members) => {
            let words: Vec<String> = members
                .iter()
                .map(|member| match member {
                    Shown::One(Value::String(text)) => text.clone(),
                    Shown::One(_) | Shown::List(_) | Shown::Table(_) => String::new(),
                })
                .collect();
            for (member, is_secret) in members.iter_mut().zip(veil::secret_words(words.iter().map(String::as_str))) {
                if is_secret { *member = Shown::One(HIDDEN.into()) } else { hide(member, base) }
            }
        }
        Shown::Table(entries) => {
            for (key, member) in entries {
                match member {
                    Shown::One(_) | Shown::List(_) if PATHS.contains(&key.as_str()) => hide_paths(member, base),
                    Shown::One(_) | Shown::List(_) | Shown::Table(_) => hide(member, base),
                }
            }
        }
    }
}

/// Hides what is no path but a secret in the place of one.
fn hide_paths(shown: &mut Shown, base: &Path) {
    match shown {
        Shown::One(Value::String(text)) if veil::is_no_path(text, base) => HIDDEN.clone_into(text),
        Shown::One(_) => {}
        Shown::List(members) => members.iter_mut().for_each(|member| hide_paths(member, base)),
        Shown::Table(_) => hide(shown, base),
    }
}

impl Serialize for Shown {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::One(value) => value.serialize(serializer),
            Self::List(members) => serializer.collect_seq(members),
            Self::Table(entries) => serializer.collect_map(entries.iter().map(|(key, member)| (key, member))),
        }
    }
}

impl<'de> Deserialize<'de> for Shown {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reading)
    }
}

/// Reads whatever JSON writes.
struct Reading;

impl<'de> de::Visitor<'de> for Reading {
    type Value = Shown;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a setting")
    }

    fn visit_unit<E>(self) -> Result<Shown, E> {
        Ok(Shown::One(Value::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Shown, E> {
        Ok(Shown::One(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Shown, E> {
        Ok(Shown::One(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Shown, E> {
        Ok(Shown::One(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Shown, E> {
        Ok(Shown::One(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Shown, E> {
        Ok(Shown::One(value.into()))
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut members: A) -> Result<Shown, A::Error> {
        let mut list = Vec::new();
        while let Some(member) = members.next_element()? {
            list.push(member);
        }
        Ok(Shown::List(list))
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut entries: A) -> Result<Shown, A::Error> {
        let mut table = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            table.push(entry);
        }
        Ok(Shown::Table(table))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_setting_writes_is_shown() {
        let text = r#"{"b":[null,true,-1,1,0.5,"a"],"a":{}}"#;
        let shown: Shown = serde_json::from_str(text).expect("what settings may write");
        assert_eq!(serde_json::to_string(&shown).expect("JSON"), text);
    }
}
