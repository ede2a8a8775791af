//! How settings are written: by the keys of the file and in its forms, so that what is shown can be read again.
//!
//! Writes no value that is hidden. A key that would only say what holds without it, and be warned of, is left out.

use super::{
    super::{quantity, show::HIDDEN},
    Credential, Durability, Hidden, Limit, Log, Network, Place, PolicyFiles, Rate, Reach, ToolRule,
};
use identity::ClaimPath;
use serde::{Serialize, Serializer, ser::SerializeMap as _};
use std::{collections::BTreeMap, fmt, path::Path, time::Duration};

impl Serialize for PolicyFiles {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.patterns.serialize(serializer)
    }
}

impl Serialize for Reach {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match self {
            Self::Http { url, internal, ca, http2, socket, sse } => {
                map.serialize_entry("url", url.as_str())?;
                map.serialize_entry("internal", internal)?;
                map.serialize_entry("transport", if *sse { "sse" } else { "auto" })?;
                if let Some(ca) = ca {
                    map.serialize_entry("ca", &ca.display().to_string())?;
                }
                if let Some(http2) = http2 {
                    map.serialize_entry("http2", http2)?;
                }
                if let Some(socket) = socket {
                    map.serialize_entry("socket", &socket.display().to_string())?;
                }
            }
            Self::Command { program, arguments, directory, env, shared, memory } => {
                let command: Vec<&String> = std::iter::once(program).chain(arguments).collect();
                map.serialize_entry("command", &command)?;
                map.serialize_entry("directory", &directory.display().to_string())?;
                map.serialize_entry("env", env)?;
                map.serialize_entry("shared", shared)?;
                if let Some(memory) = memory {
                    map.serialize_entry("memory", &quantity::print_size(*memory))?;
                }
            }
        }
        map.end()
    }
}

impl Serialize for Credential {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match &self.place {
            Place::Bearer => map.serialize_entry("bearer", &self.secret)?,
            Place::Header(name) => map.serialize_entry("header", name)?,
            Place::Query(name) => map.serialize_entry("query", name)?,
            Place::Env(name) => map.serialize_entry("env", name)?,
        }
        if self.place != Place::Bearer {
            map.serialize_entry("secret", &self.secret)?;
        }
        map.end()
    }
}

impl Serialize for Limit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let globs = [("agent", &self.agent), ("tool", &self.tool), ("server", &self.server), ("tenant", &self.tenant)];
        let whom: BTreeMap<_, _> = globs.into_iter().filter_map(|(key, glob)| Some((key, glob.as_ref()?))).collect();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("for", &whom)?;
        map.serialize_entry("rate", &self.rate)?;
        map.serialize_entry("burst", &self.burst)?;
        if let Some(concurrency) = &self.concurrency {
            map.serialize_entry("concurrency", concurrency)?;
        }
        map.end()
    }
}

impl Serialize for Log {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        let durability = match self.durability {
            Durability::ByRisk => "by-risk",
            Durability::Strict => "strict",
        };
        map.serialize_entry("durability", durability)?;
        // Without texts to keep, how many are kept has no use.
        if let Some(keep_text) = self.keep_text {
            map.serialize_entry("keep_text", &quantity::print_duration(keep_text))?;
            map.serialize_entry("text_per_day", &quantity::print_size(self.text_per_day))?;
        }
        map.end()
    }
}

impl Serialize for Hidden {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(HIDDEN)
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// As a table by glob, in the order that counts.
pub(super) fn tools<S: Serializer>(tools: &[ToolRule], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(tools.iter().map(|tool| (&tool.glob, tool)))
}

pub(super) fn path<S: Serializer>(value: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&value.display())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference to the field")]
pub(super) fn bytes<S: Serializer>(value: &usize, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&quantity::print_size(u64::try_from(*value).unwrap_or(u64::MAX)))
}

pub(super) fn duration<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&quantity::print_duration(*value))
}

pub(super) fn claim<S: Serializer>(value: &ClaimPath, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("claim:{value}"))
}

#[expect(clippy::ref_option, reason = "serde hands over a reference to the field")]
pub(super) fn optional_claim<S: Serializer>(value: &Option<ClaimPath>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => claim(value, serializer),
        None => serializer.serialize_none(),
    }
}

pub(super) fn text<T: fmt::Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

pub(super) fn one_or_more<T: fmt::Display, S: Serializer>(values: &[T], serializer: S) -> Result<S::Ok, S::Error> {
    match values {
        [one] => serializer.collect_str(one),
        more => texts(more, serializer),
    }
}

pub(super) fn texts<T: fmt::Display, S: Serializer>(values: &[T], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(values.iter().map(ToString::to_string))
}

#[expect(clippy::ref_option, reason = "serde hands over a reference to the field")]
pub(super) fn optional_text<T: fmt::Display, S: Serializer>(
    value: &Option<T>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_none(),
    }
}
