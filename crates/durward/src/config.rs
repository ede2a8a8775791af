//! Reads `durward.yaml`: text → tree with places → held against the table of keys → [`Settings`].
//!
//! Owns every word of the configuration. Reports every fault at once, with line, caret, cause and fix, and never
//! prints a value that may be a secret. Starts nothing, opens no connection, expands no variable.

mod load;

mod read;
mod shape;
mod tree;

pub(crate) mod diff;
pub(crate) mod schema;
pub(crate) mod settings;
pub(crate) mod show;

mod fault;
mod key;
mod quantity;
mod veil;

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

pub(crate) use fault::Report;
pub(crate) use key::PORT;
pub(crate) use load::{
    Loaded, Look, Named, Part, USUAL_FILE, cases, data_of, find, in_cases, in_rules, load, load_again, load_aside,
    look_at_cases, looks, port_of, without_file,
};
pub(crate) use quantity::Lifetime;
pub(crate) use settings::Settings;
