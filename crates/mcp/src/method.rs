//! What each known method is.

use vocab::Action;

/// Which list a method returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ListKind {
    /// `tools/list`
    Tools,
    /// `prompts/list`
    Prompts,
    /// `resources/list`
    Resources,
    /// `resources/templates/list`
    Templates,
}

impl ListKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Tools, Self::Prompts, Self::Resources, Self::Templates];

    /// The method that returns it.
    pub const fn method(self) -> &'static str {
        match self {
            Self::Tools => "tools/list",
            Self::Prompts => "prompts/list",
            Self::Resources => "resources/list",
            Self::Templates => "resources/templates/list",
        }
    }

    /// The member of the result that holds the entries.
    pub const fn member(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Prompts => "prompts",
            Self::Resources => "resources",
            Self::Templates => "resourceTemplates",
        }
    }

    /// The member of an entry that identifies it.
    pub const fn name_member(self) -> &'static str {
        match self {
            Self::Tools | Self::Prompts => "name",
            Self::Resources => "uri",
            Self::Templates => "uriTemplate",
        }
    }
}

/// Where the thing a method acts on is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    /// `params.name`
    Name,
    /// `params.uri`
    Uri,
    /// `params.taskId`
    TaskId,
}

/// Where `method` names what it acts on.
pub(crate) fn subject(method: &str) -> Option<Subject> {
    match method {
        "tools/call" | "prompts/get" => Some(Subject::Name),
        "resources/read" | "resources/subscribe" | "resources/unsubscribe" => Some(Subject::Uri),
        "tasks/get" | "tasks/update" | "tasks/cancel" | "tasks/result" => Some(Subject::TaskId),
        _ => None,
    }
}

/// Whether `Mcp-Name` is required for `method` (2026-07-28, streamable-http, "Standard Request Headers").
pub(crate) fn needs_name_header(method: &str) -> bool {
    matches!(method, "tools/call" | "prompts/get" | "resources/read")
}

/// What a method asks for; `None` where it is open ([`is_open`]) or unknown (`method.call`).
pub fn action(method: &str) -> Option<Action> {
    match method {
        "tools/call" => Some(Action::ToolExecute),
        "resources/read" => Some(Action::ResourceRead),
        "resources/subscribe" | "resources/unsubscribe" => Some(Action::ResourceSubscribe),
        "prompts/get" => Some(Action::PromptGet),
        "completion/complete" => Some(Action::CompletionComplete),
        "sampling/createMessage" => Some(Action::ServerSample),
        "elicitation/create" => Some(Action::ServerElicit),
        "roots/list" => Some(Action::ServerRoots),
        _ if method.starts_with("tasks/") => Some(Action::TaskManage),
        _ => None,
    }
}

/// Whether a method needs no rule: handshake, ping, lists, streams, and the notifications that belong to them.
pub fn is_open(method: &str) -> bool {
    matches!(method, "initialize" | "ping" | "server/discover" | "subscriptions/listen" | "logging/setLevel")
        || list_kind(method).is_some()
        || is_known_notification(method)
}

/// The methods of all revisions, the frequent ones first.
const METHODS: [&str; 36] = [
    "tools/call",
    "tools/list",
    "resources/read",
    "resources/list",
    "resources/templates/list",
    "resources/subscribe",
    "resources/unsubscribe",
    "prompts/get",
    "prompts/list",
    "completion/complete",
    "initialize",
    "notifications/initialized",
    "notifications/progress",
    "notifications/cancelled",
    "ping",
    "server/discover",
    "subscriptions/listen",
    "sampling/createMessage",
    "elicitation/create",
    "roots/list",
    "tasks/get",
    "tasks/update",
    "tasks/cancel",
    "tasks/result",
    "tasks/list",
    "logging/setLevel",
    "notifications/message",
    "notifications/roots/list_changed",
    "notifications/tools/list_changed",
    "notifications/prompts/list_changed",
    "notifications/resources/list_changed",
    "notifications/resources/updated",
    "notifications/elicitation/complete",
    "notifications/subscriptions/acknowledged",
    "notifications/tasks/status",
    "notifications/tasks",
];

/// A method by its own name, if the protocol has it.
pub(crate) fn known(method: &str) -> Option<&'static str> {
    METHODS.into_iter().find(|known| *known == method)
}

/// The notifications of all revisions and of the tasks extension, either direction.
pub fn is_known_notification(method: &str) -> bool {
    matches!(
        method,
        "notifications/initialized"
            | "notifications/cancelled"
            | "notifications/progress"
            | "notifications/message"
            | "notifications/roots/list_changed"
            | "notifications/tools/list_changed"
            | "notifications/prompts/list_changed"
            | "notifications/resources/list_changed"
            | "notifications/resources/updated"
            | "notifications/elicitation/complete"
            | "notifications/subscriptions/acknowledged"
            | "notifications/tasks/status"
            | "notifications/tasks"
    )
}

/// Which list a method returns.
pub fn list_kind(method: &str) -> Option<ListKind> {
    ListKind::ALL.into_iter().find(|kind| kind.method() == method)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_is_open_or_needs_a_rule_and_never_both() {
        let known = [
            "tools/call",
            "resources/read",
            "resources/subscribe",
            "resources/unsubscribe",
            "prompts/get",
            "completion/complete",
            "tasks/get",
            "tasks/cancel",
            "sampling/createMessage",
            "elicitation/create",
            "roots/list",
        ];
        for method in known {
            assert!(action(method).is_some() && !is_open(method), "{method}");
        }
        for method in ["initialize", "ping", "tools/list", "resources/templates/list", "notifications/progress"] {
            assert!(action(method).is_none() && is_open(method), "{method}");
        }
        for method in ["", "tools/Call", "vendor/thing", "notifications/vendor"] {
            assert!(action(method).is_none() && !is_open(method), "{method}");
        }
    }
}
