//! Who a client is and what it can be asked, as both eras say it.
//!
//! Legacy clients say it once, in `initialize`; modern ones with each request. What is kept is text of our own: only
//! what both eras know, in an order of our own, bounded.

use super::{
    BridgeFault, brief,
    rewrite::{at, each, is_object, object, text_at},
};
use crate::{Message, Revision, key, splice::quote};

/// What is said for a client or a server that says nothing usable of itself.
const NOBODY: &[u8] = br#"{"name":"unknown","version":"0"}"#;
/// The extension of tasks. It is not carried: in the legacy era tasks are something else.
const TASKS: &str = "io.modelcontextprotocol/tasks";

/// A client's declared capabilities and identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// An object as text, the same in both eras.
    capabilities: String,
    /// An object as text that has a name and a version. Unverified.
    info: Option<String>,
    /// It fills forms.
    form: bool,
    /// It opens URLs.
    url: bool,
    /// It samples.
    sampling: bool,
    /// It samples with tools.
    sampling_tools: bool,
    /// It names roots.
    roots: bool,
}

impl Client {
    /// Longest text of capabilities, in bytes.
    pub const MOST_CAPABILITIES: usize = 16 << 10;
    /// Longest identity that is kept whole, in bytes. Of a longer one the name and the version stay.
    pub const MOST_INFO: usize = 4 << 10;

    /// As a legacy `initialize` request says it, where `revision` is what was agreed on.
    pub(super) fn of_initialize(message: &Message, revision: Revision) -> Result<Self, BridgeFault> {
        let capabilities = message.param(&["capabilities"]).map(|member| member.raw);
        Self::new(capabilities, message.param(&["clientInfo"]).map(|member| member.raw), revision)
    }

    /// As the metadata of a modern request says it.
    pub fn of_request(message: &Message) -> Result<Self, BridgeFault> {
        let capabilities = message.param(&["_meta", key::CLIENT_CAPABILITIES]).map(|member| member.raw);
        let info = message.param(&["_meta", key::CLIENT_INFO]).map(|member| member.raw);
        Self::new(capabilities, info, Revision::V2026_07_28)
    }

    fn new(capabilities: Option<&[u8]>, client: Option<&[u8]>, revision: Revision) -> Result<Self, BridgeFault> {
        let raw = capabilities.filter(|raw| is_object(raw)).ok_or(BridgeFault::Malformed("capabilities"))?;
        let declared = |name| at(raw, &[name]).filter(|raw| is_object(raw));
        // What a revision did not define yet means nothing there.
        let elicitation = declared("elicitation").filter(|_| revision >= Revision::V2025_06_18);
        let detailed = revision >= Revision::V2025_11_25;
        let sampling = declared("sampling");
        let part = |of: Option<&[u8]>, name| detailed && of.is_some_and(|of| at(of, &[name]).is_some_and(is_object));
        let url = part(elicitation, "url");

        let elicitation_text =
            elicitation.map(|raw| if detailed { pick(raw, &["form", "url"]) } else { b"{}".to_vec() });
        let sampling_text =
            sampling.map(|raw| if detailed { pick(raw, &["context", "tools"]) } else { b"{}".to_vec() });
        let texts = [
            ("elicitation", elicitation_text),
            ("experimental", declared("experimental").map(|raw| sorted(raw, &[]))),
            ("extensions", declared("extensions").map(|raw| sorted(raw, &[TASKS]))),
            // Whether their list can change is of no use in the modern era: nothing says so there.
            ("roots", declared("roots").map(|_| b"{}".to_vec())),
            ("sampling", sampling_text),
        ];
        let members: Vec<_> = texts.iter().filter_map(|(name, text)| Some((*name, text.as_deref()?))).collect();
        let capabilities = object(&members);
        if capabilities.len() > Self::MOST_CAPABILITIES {
            return Err(BridgeFault::TooLarge { what: "client capabilities", most: Self::MOST_CAPABILITIES });
        }
        Ok(Self {
            capabilities: String::from_utf8_lossy(&capabilities).into_owned(),
            info: client.and_then(|raw| identity(raw, Self::MOST_INFO)),
            // An empty object says form (2025-11-25, client/elicitation, "Capabilities").
            form: elicitation.is_some() && (part(elicitation, "form") || !url),
            url,
            sampling: sampling.is_some(),
            sampling_tools: part(sampling, "tools"),
            roots: declared("roots").is_some(),
        })
    }

    /// What it can do, as an object.
    pub fn capabilities(&self) -> &str {
        &self.capabilities
    }

    /// Leaves capabilities out of what a server is told. What the client can answer stays known.
    pub fn hide(&mut self, names: &[&str]) {
        let raw = self.capabilities.as_bytes();
        let kept: Vec<_> = each(raw).filter(|(name, _)| !names.contains(&name.as_ref())).collect();
        let kept = object(&kept.iter().map(|(name, value)| (name.as_ref(), *value)).collect::<Vec<_>>());
        self.capabilities = String::from_utf8_lossy(&kept).into_owned();
    }

    /// Who it says it is, as an object.
    pub fn info(&self) -> Option<&str> {
        self.info.as_deref()
    }

    /// Who it says it is, where something must be said.
    pub(super) fn info_or_nobody(&self) -> &[u8] {
        self.info.as_deref().map_or(NOBODY, str::as_bytes)
    }

    /// The same for clients that a legacy server cannot tell apart: what it is told of them in `initialize`.
    pub fn key(&self) -> String {
        format!("{}\n{}", self.capabilities, self.info.as_deref().unwrap_or_default())
    }

    /// Whether it declared that it can be asked this.
    pub fn can_answer(&self, method: &str, params: Option<&[u8]>) -> Result<(), BridgeFault> {
        let params = params.unwrap_or_default();
        let lack = match method {
            "elicitation/create" => match text_at(params, &["mode"]).as_deref() {
                None if at(params, &["mode"]).is_some() => Some("its mode is no string"),
                None | Some("form") if self.form => None,
                None | Some("form") => Some("the client did not declare that it fills forms"),
                Some("url") if self.url => None,
                Some("url") => Some("the client did not declare that it opens URLs"),
                Some(_) => Some("its mode is not known"),
            },
            "sampling/createMessage" if !self.sampling => Some("the client did not declare that it samples"),
            "sampling/createMessage" => {
                let tools = at(params, &["tools"]).is_some() || at(params, &["toolChoice"]).is_some();
                (tools && !self.sampling_tools).then_some("the client did not declare that it samples with tools")
            }
            "roots/list" if self.roots => None,
            "roots/list" => Some("the client did not declare that it names roots"),
            _ => Some("no client can be asked that"),
        };
        lack.map_or(Ok(()), |why| Err(BridgeFault::CannotAsk { method: brief(method), why }))
    }
}

/// The members of `raw` with these names that are objects, as an object.
pub(super) fn pick(raw: &[u8], names: &[&str]) -> Vec<u8> {
    let members: Vec<_> =
        names.iter().filter_map(|name| Some((*name, at(raw, &[name]).filter(|raw| is_object(raw))?))).collect();
    object(&members)
}

/// The members of `raw` that are objects, by name, but for those left out.
fn sorted(raw: &[u8], without: &[&str]) -> Vec<u8> {
    let wanted = |name: &str, value: &[u8]| is_object(value) && !without.contains(&name);
    let mut members: Vec<_> = each(raw).filter(|(name, value)| wanted(name, value)).collect();
    members.sort();
    object(&members.iter().map(|(name, value)| (name.as_ref(), *value)).collect::<Vec<_>>())
}

/// The extensions that a server may offer across the bridge.
pub(super) fn extensions(raw: &[u8]) -> Vec<u8> {
    sorted(raw, &[TASKS])
}

/// An `Implementation` as it was sent if it is one, cut down to name and version if it is long.
pub(super) fn identity(raw: &[u8], most: usize) -> Option<String> {
    let (name, version) = (text_at(raw, &["name"])?, text_at(raw, &["version"])?);
    if raw.len() <= most {
        return std::str::from_utf8(raw).ok().map(str::to_owned);
    }
    let cut = |text: &str| quote(&text.chars().take(128).collect::<String>());
    Some(format!("{{\"name\":{},\"version\":{}}}", cut(&name), cut(&version)))
}

/// What a server says of itself, or that it says nothing.
pub(super) fn server(raw: Option<&[u8]>) -> Vec<u8> {
    let known = raw.filter(|raw| text_at(raw, &["name"]).is_some() && text_at(raw, &["version"]).is_some());
    known.unwrap_or(NOBODY).to_vec()
}
