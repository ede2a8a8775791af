//! What the relays and pipes tell the judge: pieces, in the order in which they came by. Nothing here is read yet.

use crate::plan::{Direction, Leg};
use bytes::Bytes;
use http::StatusCode;
use std::sync::atomic::{AtomicU64, Ordering};

/// One request over HTTP with its answer, or one program's pipes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Exchange(u64);

impl Exchange {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

#[derive(Debug)]
pub(crate) enum Seen {
    /// A request over HTTP.
    Asked { exchange: Exchange, leg: Leg, about: About, body: Bytes },
    /// The head of its answer.
    Answered { exchange: Exchange, session: Option<String>, content: Content, status: StatusCode },
    /// A piece of its answer's body.
    Piece { exchange: Exchange, bytes: Bytes },
    /// Nothing more comes of its answer's body, or of a program.
    Ended { exchange: Exchange, end: End },
    /// A program was started.
    Started { exchange: Exchange, leg: Leg },
    /// A piece of what it is told, or says.
    Spoken { exchange: Exchange, direction: Direction, bytes: Bytes },
}

/// How something ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Whole,
    /// Whoever said it broke off.
    Broken,
    /// Nobody wants it any more.
    Left,
}

/// What the head of a request says of the messages in it.
#[derive(Debug, Clone, Default)]
pub(crate) struct About {
    pub(crate) session: Option<String>,
    pub(crate) revision: Option<String>,
    /// Path and query.
    pub(crate) path: String,
}

/// What a body is, by the head before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    Events,
    Json,
    /// No messages, if it is not empty.
    Other,
    /// It may be messages, but is compressed.
    Sealed,
}
