//! Where addresses stand in messages, by shape: a stream that is taken up again gives answers of which nobody knows to
//! what.
//!
//! Never looks into what servers and clients tell each other in their own words: arguments, `structuredContent`, texts.

use super::{APP, is_web, join, may_occur, split};
use crate::{Kind, Member, Message, Span, splice::quote, walk::Walk};

type Edits = Vec<(Span, Vec<u8>)>;

/// Members of metadata that hold no addresses, whatever they look like.
const PLAIN: [&str; 3] =
    ["progressToken", "io.modelcontextprotocol/related-task", "io.modelcontextprotocol/subscriptionId"];

/// What is another in what `server` says, as the aggregate says it. An address of the web that is only linked to stays
/// as it is unless the server `offers` it as a resource: whoever reads the link can follow it.
pub fn said(message: &Message, server: &str, offers: &dyn Fn(&str) -> bool) -> Edits {
    let mut visit = Visit { text: message.bytes(), way: Way::Out { server, offers }, edits: Vec::new() };
    match message.kind() {
        Kind::Response => {
            if let Some(result) = message.result_member() {
                visit.result(&result.span, false);
            }
            if let Some(error) = message.error_member() {
                visit.error(&error.span);
            }
        }
        Kind::Request | Kind::Notification => {
            if let Some(params) = message.params_member() {
                visit.params(&params.span, message.method());
            }
        }
    }
    visit.edits
}

/// What is another in the metadata of what a client says, as `server` is to hear it.
pub fn heard(message: &Message, server: &str) -> Edits {
    let meta = match message.kind() {
        Kind::Response => message.outcome_member(&["_meta"]),
        Kind::Request | Kind::Notification => message.param(&["_meta"]),
    };
    let mut visit = Visit { text: message.bytes(), way: Way::In { server }, edits: Vec::new() };
    if let Some(meta) = meta.filter(|meta| may_occur(meta.raw)) {
        visit.meta(&meta.span);
    }
    visit.edits
}

/// What is another in the metadata of an entry of a list.
pub(super) fn of_entry(raw: &[u8], server: &str) -> Edits {
    let mut visit = Visit { text: raw, way: Way::Out { server, offers: &|_| true }, edits: Vec::new() };
    visit.members(&(0..raw.len()), |visit, key, span| {
        if key == "_meta" {
            visit.meta(&span);
        }
    });
    visit.edits
}

/// Which way a message goes.
#[derive(Clone, Copy)]
enum Way<'a> {
    /// To a client of the aggregate.
    Out { server: &'a str, offers: &'a dyn Fn(&str) -> bool },
    /// To a server.
    In { server: &'a str },
}

/// A scanned text and what is to be changed in it.
struct Visit<'a> {
    text: &'a [u8],
    way: Way<'a>,
    edits: Edits,
}

impl<'a> Visit<'a> {
    /// A result of a call, a reading, a prompt, or of a task that wraps such a one.
    fn result(&mut self, at: &Span, is_wrapped: bool) {
        self.members(at, |visit, key, span| match key {
            "_meta" => visit.meta(&span),
            "content" => visit.blocks(&span, false),
            "contents" => visit.elements(&span, |visit, span| visit.resource(&span, Self::address)),
            "messages" => visit.messages(&span),
            "inputRequests" => visit.questions(&span),
            "result" if !is_wrapped => visit.result(&span, true),
            _ => {}
        });
    }

    /// What is told or asked without having been asked for.
    fn params(&mut self, at: &Span, method: &str) {
        self.members(at, |visit, key, span| match key {
            "_meta" => visit.meta(&span),
            "uri" if method == "notifications/resources/updated" => visit.address(&span),
            "messages" => visit.messages(&span),
            "inputRequests" => visit.questions(&span),
            "result" => visit.result(&span, true),
            _ => {}
        });
    }

    /// What says which resource there is not: one of the server's, whatever its address looks like, and nothing to follow.
    fn error(&mut self, at: &Span) {
        self.members(at, |visit, key, span| {
            if key == "data" {
                visit.members(&span, |visit, key, span| {
                    if key == "uri" {
                        visit.address(&span);
                    }
                });
            }
        });
    }

    /// What a server asks by way of a result: each by its name.
    fn questions(&mut self, at: &Span) {
        self.members(at, |visit, _, span| {
            visit.members(&span, |visit, key, span| {
                if key == "params" {
                    visit.params(&span, "");
                }
            });
        });
    }

    /// Messages of a prompt or for a model.
    fn messages(&mut self, at: &Span) {
        self.elements(at, |visit, span| {
            visit.members(&span, |visit, key, span| match key {
                "_meta" => visit.meta(&span),
                "content" => visit.blocks(&span, false),
                _ => {}
            });
        });
    }

    /// Content, one piece or several. Results of tools are content of content, and no deeper.
    fn blocks(&mut self, at: &Span, is_inner: bool) {
        if self.raw(at).starts_with(b"[") {
            self.elements(at, |visit, span| visit.block(&span, is_inner));
        } else {
            self.block(at, is_inner);
        }
    }

    fn block(&mut self, at: &Span, is_inner: bool) {
        self.members(at, |visit, key, span| match key {
            "uri" => visit.link(&span),
            "resource" => visit.resource(&span, Self::link),
            "_meta" => visit.meta(&span),
            "content" if !is_inner => visit.blocks(&span, true),
            _ => {}
        });
    }

    /// Something of a resource that is given whole.
    fn resource(&mut self, at: &Span, address: fn(&mut Self, &Span)) {
        self.members(at, |visit, key, span| match key {
            "uri" => address(visit, &span),
            "_meta" => visit.meta(&span),
            _ => {}
        });
    }

    /// Metadata: whatever is the address of an app, under whatever key. Hosts know several.
    fn meta(&mut self, at: &Span) {
        self.members(at, |visit, key, span| {
            if !PLAIN.contains(&key) {
                visit.apps(&span);
            }
        });
    }

    /// The addresses of apps in a value. Recurses as deep as the text nests, which the scan bounded.
    fn apps(&mut self, at: &Span) {
        match self.raw(at) {
            [b'{', ..] => self.members(at, |visit, _, span| visit.apps(&span)),
            [b'[', ..] => self.elements(at, |visit, span| visit.apps(&span)),
            [b'"', ..] => self.edit(at, |way, text| text.starts_with(APP).then(|| way.other(text)).flatten()),
            _ => {}
        }
    }

    /// An address that is one whatever it is.
    fn address(&mut self, at: &Span) {
        self.edit(at, Way::other);
    }

    /// An address that may be one for the client to follow by itself.
    fn link(&mut self, at: &Span) {
        self.edit(at, |way, text| {
            let is_left = matches!(way, Way::Out { offers, .. } if is_web(text) && !offers(text));
            if is_left { None } else { way.other(text) }
        });
    }

    fn edit(&mut self, at: &Span, other: impl Fn(Way<'a>, &str) -> Option<String>) {
        let Some(text) = (Member { span: at.clone(), raw: self.raw(at) }).text() else { return };
        if let Some(other) = other(self.way, &text) {
            self.edits.push((at.clone(), quote(&other).into_bytes()));
        }
    }

    fn members(&mut self, at: &Span, mut each: impl FnMut(&mut Self, &str, Span)) {
        let mut walk = Walk::new(self.raw(at), at.start);
        while let Some((key, span)) = walk.member() {
            each(self, &key, span);
        }
    }

    fn elements(&mut self, at: &Span, mut each: impl FnMut(&mut Self, Span)) {
        let mut walk = Walk::new(self.raw(at), at.start);
        while let Some(span) = walk.element() {
            each(self, span);
        }
    }

    fn raw(&self, at: &Span) -> &'a [u8] {
        self.text.get(at.clone()).unwrap_or_default()
    }
}

impl Way<'_> {
    /// The address on the other side. `None` where it has none there.
    fn other(self, address: &str) -> Option<String> {
        match self {
            Self::Out { server, .. } => Some(join(server, address)),
            Self::In { server } => {
                let (of, address) = split(address)?;
                (of == server).then(|| address.into_owned())
            }
        }
    }
}
