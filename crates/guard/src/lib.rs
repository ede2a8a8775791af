//! Finds and rewrites things in texts.
//!
//! Pure: no clock, no socket, no async. Works on the text of a JSON value and changes nothing but the ranges it found.

mod carry;
mod detector;
mod escape;
mod guards;
mod json;
mod secret;

pub use carry::Carry;
pub use detector::{Detector, HIGH_ENTROPY, Match, Mode, Setting};
pub use guards::{Guards, Screening, TooManyDetectors, Verdict, search, too_large};
pub use secret::Secrets;

#[cfg(test)]
mod tests;
