//! Where in a token's claims a fact stands, and how it is read.

use serde_json::{Map, Value};
use std::{fmt, str::FromStr};

/// The most values one claim may carry.
const MOST_VALUES: usize = 256;

/// The place of a claim: `claim:azp`, `claim:realm_access.roles`.
///
/// A claim whose own name holds dots (`https://example.com/roles`) is found by its whole name first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimPath(String);

/// A text that names no claim.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` does not name a claim, write it like claim:azp or claim:realm_access.roles")]
pub struct ClaimPathError(String);

impl FromStr for ClaimPath {
    type Err = ClaimPathError;
    fn from_str(text: &str) -> Result<Self, ClaimPathError> {
        match text.strip_prefix("claim:") {
            Some(path) if !path.is_empty() && path.len() <= 256 && !path.contains(char::is_control) => {
                Ok(Self(path.to_owned()))
            }
            _ => Err(ClaimPathError(text.chars().take(80).collect())),
        }
    }
}

impl fmt::Display for ClaimPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl ClaimPath {
    /// The one text at this place. `Err` if something else is there.
    pub(crate) fn one<'c>(&self, claims: &'c Map<String, Value>) -> Result<Option<&'c str>, Unusable> {
        match find(claims, &self.0) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => Err(Unusable),
        }
    }

    /// The texts at this place: an array of strings, or one string with spaces between the values.
    ///
    /// SECURITY: one odd element makes the whole claim unusable. Leaving it out could leave out what a rule denies.
    pub(crate) fn many<'c>(&self, claims: &'c Map<String, Value>) -> Result<Vec<&'c str>, Unusable> {
        let values: Vec<&str> = match find(claims, &self.0) {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::String(text)) => text.split_ascii_whitespace().collect(),
            Some(Value::Array(items)) => {
                items.iter().map(|item| item.as_str().ok_or(Unusable)).collect::<Result<_, _>>()?
            }
            Some(Value::Bool(_) | Value::Number(_) | Value::Object(_)) => return Err(Unusable),
        };
        if values.len() > MOST_VALUES { Err(Unusable) } else { Ok(values) }
    }
}

/// A claim that is there but is not what its place asks for.
#[derive(Debug)]
pub(crate) struct Unusable;

fn find<'c>(claims: &'c Map<String, Value>, path: &str) -> Option<&'c Value> {
    if let Some(value) = claims.get(path) {
        return Some(value);
    }
    let (head, rest) = path.split_once('.')?;
    find(claims.get(head)?.as_object()?, rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn claims() -> Map<String, Value> {
        let value = json!({
            "azp": "ci", "scope": "read write", "realm_access": {"roles": ["dev", "ops"]},
            "https://example.com/roles": ["owner"], "mixed": ["a", 7], "number": 7, "none": null,
        });
        value.as_object().unwrap().clone()
    }

    fn many(path: &str) -> Option<Vec<String>> {
        let path: ClaimPath = path.parse().unwrap();
        path.many(&claims()).ok().map(|values| values.into_iter().map(String::from).collect())
    }

    #[test]
    fn claims_are_found_by_name_and_by_path() {
        assert_eq!("claim:azp".parse::<ClaimPath>().unwrap().one(&claims()).unwrap(), Some("ci"));
        assert_eq!(many("claim:scope").unwrap(), ["read", "write"]);
        assert_eq!(many("claim:realm_access.roles").unwrap(), ["dev", "ops"]);
        assert_eq!(many("claim:https://example.com/roles").unwrap(), ["owner"]);
        assert!(many("claim:none").unwrap().is_empty() && many("claim:absent.deep").unwrap().is_empty());
    }

    #[test]
    fn odd_claims_are_unusable_not_empty() {
        assert!(many("claim:mixed").is_none() && many("claim:number").is_none());
        assert!("claim:number".parse::<ClaimPath>().unwrap().one(&claims()).is_err());
        for bad in ["azp", "claim:", "header:x", "claim:a\nb"] {
            assert!(bad.parse::<ClaimPath>().is_err(), "{bad:?}");
        }
    }
}
