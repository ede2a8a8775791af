//! The configuration as it is understood, for people and programs: defaults filled in, nothing secret.

use super::{settings::Settings, veil};
use serde_json::Value;

/// What stands for a value that is not shown.
pub(super) const HIDDEN: &str = "[hidden]";

/// Every setting by its name. Texts that look like a secret are hidden, whatever they are called.
pub(crate) fn show(settings: &Settings) -> Value {
    let mut shown = whole(settings);
    hide(&mut shown);
    shown
}

/// The same with what `show` hides, for comparing. SECURITY: not to be shown.
pub(super) fn whole(settings: &Settings) -> Value {
    serde_json::to_value(settings).unwrap_or_default()
}

fn hide(value: &mut Value) {
    match value {
        Value::String(text) if veil::looks_secret(text) => HIDDEN.clone_into(text),
        Value::Array(members) => {
            let words: Vec<String> =
                members.iter().map(|member| member.as_str().unwrap_or_default().to_owned()).collect();
            for (member, is_secret) in members.iter_mut().zip(veil::secret_words(words.iter().map(String::as_str))) {
                if is_secret { *member = HIDDEN.into() } else { hide(member) }
            }
        }
        Value::Object(members) => members.values_mut().for_each(hide),
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
