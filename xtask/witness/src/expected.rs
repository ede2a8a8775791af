//! What others say that the schema of their revision denies, with the reason. Whoever says it is no part of Durward; what
//! the gateway says counts only where it passes on what was said to it.

/// Who says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaker {
    Client,
    Server,
}

#[derive(Debug)]
pub(crate) struct Expected {
    pub(crate) speaker: Speaker,
    pub(crate) revisions: &'static [&'static str],
    /// The message: its method, or `answer to METHOD`.
    pub(crate) what: &'static str,
    /// What its fault begins with: the definition, and the pointer into it.
    pub(crate) fault: &'static str,
    /// What the fault quotes.
    pub(crate) quoting: &'static str,
    pub(crate) because: &'static str,
}

pub(crate) const EXPECTED: &[Expected] = &[
    Expected {
        speaker: Speaker::Server,
        revisions: &["2024-11-05"],
        what: "answer to tools/call",
        fault: "CallToolResult /content/0: ",
        quoting: r#""type":"audio""#,
        because: "the SDK sends what its tool gives, also where an older revision than the newest was agreed on",
    },
    Expected {
        speaker: Speaker::Server,
        revisions: &["2024-11-05", "2025-03-26"],
        what: "answer to tools/call",
        fault: "CallToolResult /content/0: ",
        quoting: r#""type":"resource_link""#,
        because: "the SDK sends what its tool gives, also where an older revision than the newest was agreed on",
    },
];
