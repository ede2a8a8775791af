//! What a detector found. Findings name a place and a kind, never the text.

use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Which way the text was going.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// From the caller to the server.
    Arguments,
    /// From the server to the caller.
    Result,
}

/// One thing found in a text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The detector family: `secrets`.
    pub detector: Arc<str>,
    /// What was found: `aws-access-key`.
    pub kind: Arc<str>,
    /// Where: a JSON pointer (RFC 6901) into the parameters (`/arguments/…` for a tool's arguments) or the
    /// result.
    pub pointer: Arc<str>,
    /// Which way the text was going.
    pub side: Side,
}
