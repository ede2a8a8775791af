//! What a listener wants to hear (2026-07-28, basic/patterns/subscriptions).

use super::{BridgeFault, rewrite};
use crate::{Message, splice::quote, walk::Walk};

const RESOURCES: &str = "resourceSubscriptions";

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

    /// Whether a `subscriptions/listen` request has a filter, and one that lists no more than can be judged one by one.
    pub fn judge(listen: &Message) -> Result<(), BridgeFault> {
        Self::of(listen)?;
        let tasks = listen.param(&["notifications", "taskIds"]);
        tasks.map_or(Ok(()), |tasks| texts("taskIds", tasks.raw).map(drop))
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
            uris: rewrite::at(wanted, &[RESOURCES]).map_or(Ok(Vec::new()), |raw| texts(RESOURCES, raw))?,
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

/// A list of texts.
fn texts(what: &'static str, raw: &[u8]) -> Result<Vec<String>, BridgeFault> {
    if !raw.starts_with(b"[") {
        return Err(BridgeFault::Malformed(what));
    }
    let mut walk = Walk::new(raw, 0);
    let mut texts = Vec::new();
    while let Some(element) = walk.element() {
        if texts.len() == Filter::MOST_URIS {
            return Err(BridgeFault::TooLarge { what, most: Filter::MOST_URIS });
        }
        let text = raw.get(element).and_then(|text| rewrite::text_at(text, &[]));
        texts.push(text.ok_or(BridgeFault::Malformed(what))?.into_owned());
    }
    Ok(texts)
}
