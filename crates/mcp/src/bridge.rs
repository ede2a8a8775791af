//! What a message of one era is in the other.
//!
//! The legacy era (`initialize`, sessions, requests of the server) and the modern one (metadata on each request, results
//! that ask for input) say the same things in other places. [`upward`] is what lies between a legacy client and a modern
//! server, [`downward`] what lies between a modern client and a legacy server. Both work on scanned messages and change
//! them by splices: what they do not know keeps its bytes, its order and the spelling of its numbers.
//!
//! Never keeps anything, never decides who is asked what when: sessions, streams, parked calls and retries belong to the
//! caller. Total on any scanned message: what cannot be said in the other era is a [`BridgeFault`].
//!
//! SECURITY: what one era trusts and the other does not know is taken out on the way: a legacy request cannot carry
//! metadata of its own into the modern era, nor state or answers of a round that never was.

mod asked;
mod client;
mod code;
mod content;
pub mod downward;
mod filter;
mod given;
mod level;
mod question;
mod rewrite;
pub mod upward;

pub use client::Client;
pub use filter::{Filter, is_at_or_below};
pub use given::check_answer;
pub use level::LogLevel;

/// Why something has no translation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BridgeFault {
    /// The message is of another kind than the translation takes.
    #[error("expected {0}")]
    Expected(&'static str),
    /// A member that the translation needs is missing or of another type.
    #[error("`{0}` is missing or of the wrong type")]
    Malformed(&'static str),
    /// A part is larger than what is kept or carried.
    #[error("{what} exceed the limit of {most}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// How much of it is taken.
        most: usize,
    },
    /// The result is of a type that the other era has no word for, at most 64 characters of its name.
    #[error("the result is of type `{0}`, which the client's revision cannot hold")]
    ResultType(String),
    /// The two sides have no revision in common with the bridge, at most 64 characters of what was offered.
    #[error("`{0}` is no revision that the bridge speaks to this server")]
    Version(String),
    /// The client cannot be asked that.
    #[error("the client cannot be asked `{method}`: {why}")]
    CannotAsk {
        /// What it was to be asked, at most 64 characters.
        method: String,
        /// What it lacks.
        why: &'static str,
    },
    /// The client's answer is not one that the server's revision can hold.
    #[error("{revision} has no word for the client's answer: {what}")]
    Content {
        /// What the server speaks.
        revision: crate::Revision,
        /// What it has no word for.
        what: &'static str,
    },
    /// The client's answer is none to what it was asked.
    #[error("the client's answer to `{method}` is not valid: {what}")]
    Answer {
        /// What it was asked, at most 64 characters.
        method: String,
        /// What is wrong, and what it should be.
        what: String,
    },
    /// The client answered a question with an error, and an answer of the modern era cannot be one.
    #[error("the client refused `{method}` with code {code}")]
    Declined {
        /// What it was asked.
        method: String,
        /// The code it gave, 0 where that is no integer.
        code: i64,
    },
}

/// The start of a text, for a message that names it.
fn brief(text: &str) -> String {
    text.chars().take(64).collect()
}

/// Whether a result may ask for input (2026-07-28, basic/patterns/mrtr, "Supported Requests").
pub fn may_ask(method: &str) -> bool {
    matches!(method, "tools/call" | "prompts/get" | "resources/read")
}

/// Whether a result says how long it may be kept (2026-07-28, server/utilities/caching).
fn is_cacheable(method: &str) -> bool {
    matches!(method, "server/discover" | "resources/read") || crate::method::list_kind(method).is_some()
}
