//! Revisions of the protocol and the two eras they fall into.

use std::{fmt, str::FromStr};

/// How a request says which protocol it speaks (2026-07-28, basic/versioning, "Terminology").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Era {
    /// A session begun by `initialize`: 2024-11-05 to 2025-11-25.
    Legacy,
    /// Metadata on each request: 2026-07-28 and later.
    Modern,
}

impl Era {
    /// The name used in records and messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Legacy => "legacy",
            Self::Modern => "modern",
        }
    }
}

impl fmt::Display for Era {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A revision of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Revision {
    /// 2024-11-05: HTTP+SSE.
    V2024_11_05,
    /// 2025-03-26: Streamable HTTP, batches.
    V2025_03_26,
    /// 2025-06-18: the version header, no batches.
    V2025_06_18,
    /// 2025-11-25: tasks, URL elicitation.
    V2025_11_25,
    /// 2026-07-28: stateless.
    V2026_07_28,
}

impl Revision {
    /// Every revision, oldest first.
    pub const ALL: [Self; 5] =
        [Self::V2024_11_05, Self::V2025_03_26, Self::V2025_06_18, Self::V2025_11_25, Self::V2026_07_28];
    /// Those that begin with `initialize`, oldest first.
    pub const LEGACY: [Self; 4] = [Self::V2024_11_05, Self::V2025_03_26, Self::V2025_06_18, Self::V2025_11_25];
    /// Those with metadata on each request, oldest first.
    pub const MODERN: [Self; 1] = [Self::V2026_07_28];
    /// What is assumed where a legacy request says nothing (2025-06-18, basic/transports, "Protocol Version Header").
    pub const ASSUMED: Self = Self::V2025_03_26;

    /// The date on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V2024_11_05 => "2024-11-05",
            Self::V2025_03_26 => "2025-03-26",
            Self::V2025_06_18 => "2025-06-18",
            Self::V2025_11_25 => "2025-11-25",
            Self::V2026_07_28 => "2026-07-28",
        }
    }

    /// The revision of that date, if we know it.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|revision| revision.as_str() == text)
    }

    /// The era it belongs to.
    pub const fn era(self) -> Era {
        match self {
            Self::V2024_11_05 | Self::V2025_03_26 | Self::V2025_06_18 | Self::V2025_11_25 => Era::Legacy,
            Self::V2026_07_28 => Era::Modern,
        }
    }

    /// Whether a body may be a batch. 2024-11-05 inherits it from JSON-RPC but its transports carry single messages.
    pub const fn has_batches(self) -> bool {
        match self {
            Self::V2025_03_26 => true,
            Self::V2024_11_05 | Self::V2025_06_18 | Self::V2025_11_25 | Self::V2026_07_28 => false,
        }
    }

    /// Whether requests carry `MCP-Protocol-Version`.
    pub const fn has_version_header(self) -> bool {
        match self {
            Self::V2024_11_05 | Self::V2025_03_26 => false,
            Self::V2025_06_18 | Self::V2025_11_25 | Self::V2026_07_28 => true,
        }
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no revision we know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a protocol revision that is spoken here")]
pub struct RevisionError(String);

impl FromStr for Revision {
    type Err = RevisionError;
    fn from_str(text: &str) -> Result<Self, RevisionError> {
        Self::parse(text).ok_or_else(|| RevisionError(text.chars().take(64).collect()))
    }
}

/// Keys of `_meta` that the protocol reserves (2026-07-28, basic/index, `_meta`).
pub mod key {
    /// The version a request speaks. Its presence makes a request modern.
    pub const PROTOCOL_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
    /// What the client can do. Required on modern requests.
    pub const CLIENT_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
    /// Who the client says it is. Unverified.
    pub const CLIENT_INFO: &str = "io.modelcontextprotocol/clientInfo";
    /// Who the server says it is. Unverified.
    pub const SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";
    /// The level from which on a request wants log messages.
    pub const LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";
    /// The `subscriptions/listen` request a message belongs to.
    pub const SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";
    /// Ours: nothing is wrong with the subscriptions of a stream that ended, and whoever listens again goes on as before.
    pub const LISTEN_AGAIN: &str = "durward/listenAgain";
    /// The task a legacy message belongs to.
    pub const RELATED_TASK: &str = "io.modelcontextprotocol/related-task";
    /// What progress notifications name.
    pub const PROGRESS_TOKEN: &str = "progressToken";
    /// The span of W3C trace context in which a message was sent.
    pub const TRACEPARENT: &str = "traceparent";
    /// What tracing systems add to it.
    pub const TRACESTATE: &str = "tracestate";
}
