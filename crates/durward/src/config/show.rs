//! The configuration as it is understood, for people and programs: defaults filled in, nothing secret.

use super::{settings::Settings, veil};
use serde_json::Value;

/// What stands for a value that is not shown.
pub(super) const HIDDEN: &str = "[hidden]";

/// Every setting by its name. Texts that look like a secret are hidden, whatever they are called.
pub(crate) fn show(settings: &Settings) -> Value {
    let mut shown = serde_json::to_value(settings).unwrap_or_default();
    hide(&mut shown);
    shown
}

fn hide(value: &mut Value) {
    match value {
        Value::String(text) if veil::looks_secret(text) => HIDDEN.clone_into(text),
        Value::Array(members) => members.iter_mut().for_each(hide),
        Value::Object(members) => members.values_mut().for_each(hide),
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
