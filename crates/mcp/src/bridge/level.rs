//! From which severity on log messages are wanted.

use crate::{Message, key};

/// A severity (RFC 5424 §6.2.1), least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LogLevel {
    /// `debug`
    Debug,
    /// `info`
    Info,
    /// `notice`
    Notice,
    /// `warning`
    Warning,
    /// `error`
    Error,
    /// `critical`
    Critical,
    /// `alert`
    Alert,
    /// `emergency`
    Emergency,
}

impl LogLevel {
    /// Every level, least first.
    pub const ALL: [Self; 8] = [
        Self::Debug,
        Self::Info,
        Self::Notice,
        Self::Warning,
        Self::Error,
        Self::Critical,
        Self::Alert,
        Self::Emergency,
    ];

    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
            Self::Alert => "alert",
            Self::Emergency => "emergency",
        }
    }

    /// The level of that word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str() == word)
    }

    /// What a modern request wants: the level in its metadata. `None`: no log messages.
    pub fn wanted(request: &Message) -> Option<Self> {
        Self::parse(&request.param(&["_meta", key::LOG_LEVEL])?.text()?)
    }

    /// The `level` in the params: what `logging/setLevel` sets, and what `notifications/message` is of.
    pub fn named(message: &Message) -> Option<Self> {
        Self::parse(&message.param(&["level"])?.text()?)
    }
}
