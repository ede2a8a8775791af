//! Decides.
//!
//! [`Policies`] are compiled from files, asked a [`Question`], and answer with a [`Permit`] or a [`Refusal`]. Pure:
//! no files, no clock, no waiting. No other crate can make a permit. Read `permit.rs` first.

mod permit;
mod policies;
mod question;
mod refusal;
mod view;

mod character;
mod condition;
mod fact;
mod index;
mod pattern;
mod rule;
mod scan;

mod document;
mod fault;
mod load;
mod nearest;
mod syntax;

mod case;
mod explain;

pub use case::{CaseResult, Expected, check_cases, run_cases};
pub use character::{by_character, engine};
pub use explain::{Considered, Decision, Explanation, Inputs, Standing};
pub use fault::{Place, PolicyFault, PolicyWarning};
pub use nearest::nearest_name;
pub use permit::{Obligation, Permit};
pub use policies::{Policies, Source};
pub use question::{Question, Resource, Subject};
pub use refusal::{Reason, Refusal};
pub use rule::{Effect, Part, RuleSpec};
pub use syntax::{Words, syntax};

#[cfg(test)]
mod tests;
