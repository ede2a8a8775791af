//! What the scan notes of a message on its way through: where the members lie that decide what it is, and what a result
//! says at its top.
//!
//! Judges the shape of the whole. Holds places, never text.

use crate::{
    message::string,
    method::{self, ListKind},
    scan::folds_to,
};

/// A range that may be missing, in eight bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spot {
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl Spot {
    /// Nothing.
    pub(crate) const NONE: Self = Self { start: u32::MAX, end: u32::MAX };

    /// Bodies are shorter than 4 GiB; what is not would be [`Spot::NONE`].
    pub(crate) fn new(start: usize, end: usize) -> Self {
        match (u32::try_from(start), u32::try_from(end)) {
            (Ok(start), Ok(end)) => Self { start, end },
            _ => Self::NONE,
        }
    }

    pub(crate) const fn is_none(self) -> bool {
        self.start == u32::MAX
    }

    /// The same place after the text grew by `by` bytes at `at`.
    pub(crate) fn moved_on(self, at: usize, by: usize) -> Self {
        if self.is_none() || (self.start as usize) < at {
            return self;
        }
        Self::new(self.start as usize + by, self.end as usize + by)
    }

    pub(crate) fn of(self, text: &[u8]) -> Option<&[u8]> {
        if self.is_none() { None } else { text.get(self.start as usize..self.end as usize) }
    }

    pub(crate) fn moved_back(self, by: usize) -> Self {
        if self.is_none() {
            return Self::NONE;
        }
        Self::new((self.start as usize).saturating_sub(by), (self.end as usize).saturating_sub(by))
    }
}

impl Default for Spot {
    fn default() -> Self {
        Self::NONE
    }
}

/// One element of a list result. Its places are counted from the result's start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Item {
    pub(crate) whole: Spot,
    /// Its `name`, `uri` or `uriTemplate`, whatever its type.
    pub(crate) name: Spot,
}

/// The elements of an array in a result that holds entries.
#[derive(Debug, Clone)]
pub(crate) struct List {
    pub(crate) kind: ListKind,
    pub(crate) items: Vec<Item>,
}

/// What a result says at its top, noted by the scan: nobody walks through a long one to look for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// The tool failed.
    pub(crate) is_error: bool,
    /// Its `resultType`.
    pub(crate) kind: ResultKind,
    /// It has a member `task`.
    pub(crate) has_task: bool,
    /// It may ask the client something.
    pub(crate) may_ask: bool,
}

/// What a result says that it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum ResultKind {
    /// It does not say.
    #[default]
    Unsaid,
    /// A task.
    Task,
    /// Something else.
    Other,
}

impl Outcome {
    /// Takes note of a member.
    pub(crate) fn note(&mut self, key: &[u8], value: &[u8]) {
        match key {
            b"isError" => self.is_error |= value == b"true",
            b"resultType" if string(value).as_deref() == Some("task") => self.kind = ResultKind::Task,
            b"resultType" => self.kind = ResultKind::Other,
            b"task" => self.has_task = true,
            // SECURITY: some readers ignore case in member names.
            other => self.may_ask |= folds_to(other, b"inputrequests"),
        }
    }
}

/// Where the members lie that decide what a message is.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Parts {
    pub(crate) id: Spot,
    pub(crate) method: Spot,
    pub(crate) params: Spot,
    pub(crate) result: Spot,
    pub(crate) error: Spot,
    pub(crate) name: Spot,
    pub(crate) uri: Spot,
    pub(crate) task_id: Spot,
    pub(crate) arguments: Spot,
    pub(crate) version: Spot,
    pub(crate) capabilities: Spot,
    pub(crate) progress_token: Spot,
    pub(crate) traceparent: Spot,
    pub(crate) tracestate: Spot,
    /// What the result says at its top.
    pub(crate) outcome: Outcome,
    /// `params` has a member that differs from one of ours only in case.
    pub(crate) variant: bool,
    /// The same of `ref`, or inside it: what a completion is for.
    pub(crate) variant_reference: bool,
    /// The same of `notifications`, or inside it: what a subscription is for.
    pub(crate) variant_filter: bool,
    /// It has members that say nothing to what it is.
    pub(crate) more: bool,
}

impl Parts {
    /// The same parts of the same text, which now begins `by` bytes later.
    pub(crate) fn moved_back(self, by: usize) -> Self {
        Self {
            id: self.id.moved_back(by),
            method: self.method.moved_back(by),
            params: self.params.moved_back(by),
            result: self.result.moved_back(by),
            error: self.error.moved_back(by),
            name: self.name.moved_back(by),
            uri: self.uri.moved_back(by),
            task_id: self.task_id.moved_back(by),
            arguments: self.arguments.moved_back(by),
            version: self.version.moved_back(by),
            capabilities: self.capabilities.moved_back(by),
            progress_token: self.progress_token.moved_back(by),
            traceparent: self.traceparent.moved_back(by),
            tracestate: self.tracestate.moved_back(by),
            outcome: self.outcome,
            variant: self.variant,
            variant_reference: self.variant_reference,
            variant_filter: self.variant_filter,
            more: self.more,
        }
    }

    /// Whether the parts make exactly one kind of message (2026-07-28, basic/index, "Messages").
    pub(crate) fn judge(&self, text: &[u8], jsonrpc: Spot) -> Result<(), &'static str> {
        if jsonrpc.of(text).and_then(string).as_deref() != Some("2.0") {
            return Err("`jsonrpc` must be \"2.0\"");
        }
        let id = self.id.of(text);
        if self.method.is_none() {
            return self.judge_response(text, id);
        }
        let Some(method) = self.method.of(text).and_then(string).filter(|method| !method.is_empty()) else {
            return Err("`method` must be a string");
        };
        if !self.result.is_none() || !self.error.is_none() {
            return Err("it has a method and an outcome");
        }
        if id.is_some_and(|id| !is_id(id)) {
            return Err("`id` must be a string or an integer");
        }
        // A `null` is harmless and some clients send it.
        if self.params.of(text).is_some_and(|raw| !matches!(raw, [b'{' | b'[', ..] | b"null")) {
            return Err("`params` must be an object");
        }
        let variant = match &*method {
            "completion/complete" => self.variant || self.variant_reference,
            "subscriptions/listen" => self.variant_filter,
            other => self.variant && method::action(other).is_some(),
        };
        if variant {
            return Err("a parameter differs from a known one only in case");
        }
        if self.progress_token.of(text).is_some_and(|raw| !matches!(raw, [b'"' | b'-' | b'0'..=b'9', ..])) {
            return Err("`progressToken` must be a string or a number");
        }
        Ok(())
    }

    fn judge_response(&self, text: &[u8], id: Option<&[u8]>) -> Result<(), &'static str> {
        match (self.result.of(text), self.error.of(text)) {
            (Some(_), None) if id.is_some_and(is_id) => Ok(()),
            (Some(_), None) => Err("a result needs an id that is a string or an integer"),
            (None, Some([b'{', ..])) if id.is_none_or(|id| is_id(id) || id == b"null") => Ok(()),
            (None, Some([b'{', ..])) => Err("`id` must be a string, an integer or null"),
            (None, Some(_)) => Err("`error` must be an object"),
            (Some(_), Some(_)) => Err("it has a result and an error"),
            (None, None) => Err("it has no method, no result and no error"),
        }
    }
}

/// Whether a raw value can be an id: a string, or an integer written in plain digits. `1.0` and `1e0` are refused:
/// readers disagree on whether they are `1`.
fn is_id(raw: &[u8]) -> bool {
    match raw {
        [b'"', ..] => true,
        [b'-', digits @ ..] | digits => !digits.is_empty() && digits.iter().all(u8::is_ascii_digit),
    }
}
