//! What can be done, and how dangerous it is.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// What a principal asks for. Policy rules name these; so does every record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Action {
    /// `tools/call`
    #[serde(rename = "tool.execute")]
    ToolExecute,
    /// `resources/read`
    #[serde(rename = "resource.read")]
    ResourceRead,
    /// `resources/subscribe`, and a resource named in `subscriptions/listen`
    #[serde(rename = "resource.subscribe")]
    ResourceSubscribe,
    /// `prompts/get`
    #[serde(rename = "prompt.get")]
    PromptGet,
    /// `completion/complete`
    #[serde(rename = "completion.complete")]
    CompletionComplete,
    /// `tasks/*`
    #[serde(rename = "task.manage")]
    TaskManage,
    /// A server asks the client's model for text.
    #[serde(rename = "server.sample")]
    ServerSample,
    /// A server asks the client's user for input.
    #[serde(rename = "server.elicit")]
    ServerElicit,
    /// A server asks for the client's roots.
    #[serde(rename = "server.roots")]
    ServerRoots,
    /// Any other method.
    #[serde(rename = "method.call")]
    MethodCall,
}

impl Action {
    /// Every action, in the order of the documentation.
    pub const ALL: [Self; 10] = [
        Self::ToolExecute,
        Self::ResourceRead,
        Self::ResourceSubscribe,
        Self::PromptGet,
        Self::CompletionComplete,
        Self::TaskManage,
        Self::ServerSample,
        Self::ServerElicit,
        Self::ServerRoots,
        Self::MethodCall,
    ];

    /// The name used in policies and records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ToolExecute => "tool.execute",
            Self::ResourceRead => "resource.read",
            Self::ResourceSubscribe => "resource.subscribe",
            Self::PromptGet => "prompt.get",
            Self::CompletionComplete => "completion.complete",
            Self::TaskManage => "task.manage",
            Self::ServerSample => "server.sample",
            Self::ServerElicit => "server.elicit",
            Self::ServerRoots => "server.roots",
            Self::MethodCall => "method.call",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no action.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an action")]
pub struct ActionError(String);

impl FromStr for Action {
    type Err = ActionError;
    fn from_str(text: &str) -> Result<Self, ActionError> {
        Self::ALL.into_iter().find(|action| action.as_str() == text).ok_or_else(|| ActionError(text.to_owned()))
    }
}

/// How much harm a tool can do, as the operator classifies it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Changes nothing.
    Read,
    /// Changes something that can be changed back.
    Write,
    /// Destroys something.
    Destructive,
    /// Nobody said. Counts as state-changing.
    #[default]
    Unclassified,
}

impl Class {
    /// The name used in configuration, policies and records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Destructive => "destructive",
            Self::Unclassified => "unclassified",
        }
    }

    /// Whether a call may change state: everything that is not known to be a read.
    pub const fn changes_state(self) -> bool {
        match self {
            Self::Read => false,
            Self::Write | Self::Destructive | Self::Unclassified => true,
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
