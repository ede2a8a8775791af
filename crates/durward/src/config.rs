//! Reads `durward.yaml`: text → tree with places → checked against the table of keys → [`Settings`].
//!
//! Owns every word of the configuration. Reports every fault at once, with line, caret, cause and fix, and never
//! prints a value that may be a secret. Starts nothing, opens no connection, expands no variable.

mod key;
mod quantity;
pub(crate) mod settings;

pub(crate) use settings::Settings;
