//! What a listener wants to hear (2026-07-28, basic/patterns/subscriptions).

use super::{BridgeFault, rewrite};
use crate::{Message, splice::quote, walk::Walk};

/// Kinds of changes, and resources. Filters of extensions, `taskIds` for one, are not among them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// The list of tools changed.
    pub tools: bool,
    /// The list of prompts changed.
    pub prompts: bool,
    /// The list of resources changed.
    pub resources: bool,
    /// One of these resources, or a part of one, was updated.
    pub uris: Vec<String>,
}

impl Filter {
    /// Most resources in one filter, and most of whatever else one lists.
    pub const MOST_URIS: usize = 1024;

    /// Whether the filter of a `subscriptions/listen` request lists no more than can be judged one by one.
    pub fn bounded(listen: &Message) -> Result<(), BridgeFault> {
        for what in ["resourceSubscriptions", "taskIds"] {
            let Some(list) = listen.param(&["notifications", what]).filter(|list| list.raw.starts_with(b"[")) else {
                continue;
            };
            let mut walk = Walk::new(list.raw, 0);
            if std::iter::from_fn(|| walk.element()).take(Self::MOST_URIS + 1).count() > Self::MOST_URIS {
                return Err(BridgeFault::TooLarge { what, most: Self::MOST_URIS });
            }
        }
        Ok(())
    }

    /// What a `subscriptions/listen` request, or the acknowledgement of one, names in its `notifications`.
    pub fn of(message: &Message) -> Result<Self, BridgeFault> {
        let wanted = message.param(&["notifications"]).map(|member| member.raw);
        let wanted = wanted.filter(|raw| rewrite::is_object(raw)).ok_or(BridgeFault::Malformed("notifications"))?;
        let is_on = |key: &'static str| match rewrite::at(wanted, &[key]) {
            Some(b"true") => Ok(true),
            None | Some(b"false") => Ok(false),
            Some(_) => Err(BridgeFault::Malformed(key)),
        };
        Ok(Self {
            tools: is_on("toolsListChanged")?,
            prompts: is_on("promptsListChanged")?,
            resources: is_on("resourcesListChanged")?,
            uris: rewrite::at(wanted, &["resourceSubscriptions"]).map_or(Ok(Vec::new()), uris)?,
        })
    }

    /// Whether it names nothing.
    pub const fn is_empty(&self) -> bool {
        !self.tools && !self.prompts && !self.resources && self.uris.is_empty()
    }

    /// Whether a notification is one that was asked for.
    pub fn wants(&self, notification: &Message) -> bool {
        match notification.method() {
            "notifications/tools/list_changed" => self.tools,
            "notifications/prompts/list_changed" => self.prompts,
            "notifications/resources/list_changed" => self.resources,
            "notifications/resources/updated" => {
                let uri = notification.param(&["uri"]);
                // SPEC: what is told may be a part of what was subscribed to.
                let of = |uri: &str| self.uris.iter().any(|wanted| is_at_or_below(uri, wanted));
                uri.and_then(|uri| uri.text()).is_some_and(|uri| of(&uri))
            }
            _ => false,
        }
    }

    /// It as the text of `notifications`.
    pub(super) fn text(&self) -> Vec<u8> {
        let uris = self.uris.iter().map(|uri| quote(uri)).collect::<Vec<_>>().join(",");
        let uris = format!("[{uris}]");
        let mut members: Vec<(&str, &[u8])> = Vec::new();
        let kinds = [
            ("toolsListChanged", self.tools),
            ("promptsListChanged", self.prompts),
            ("resourcesListChanged", self.resources),
        ];
        members.extend(kinds.into_iter().filter(|(_, on)| *on).map(|(key, _)| (key, &b"true"[..])));
        if !self.uris.is_empty() {
            members.push(("resourceSubscriptions", uris.as_bytes()));
        }
        rewrite::object(&members)
    }
}

/// Whether one address is another, or of a part of what that names.
pub fn is_at_or_below(uri: &str, above: &str) -> bool {
    let ends = ['/', '?', '#'];
    uri.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with(ends) || above.ends_with(ends))
}

fn uris(raw: &[u8]) -> Result<Vec<String>, BridgeFault> {
    const WHAT: &str = "resourceSubscriptions";
    if !raw.starts_with(b"[") {
        return Err(BridgeFault::Malformed(WHAT));
    }
    let mut walk = Walk::new(raw, 0);
    let mut uris = Vec::new();
    while let Some(element) = walk.element() {
        if uris.len() == Filter::MOST_URIS {
            return Err(BridgeFault::TooLarge { what: WHAT, most: Filter::MOST_URIS });
        }
        let uri = raw.get(element).and_then(|uri| rewrite::text_at(uri, &[]));
        uris.push(uri.ok_or(BridgeFault::Malformed(WHAT))?.into_owned());
    }
    Ok(uris)
}
