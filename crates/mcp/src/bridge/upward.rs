//! A legacy client and a modern server.
//!
//! | the client | the server hears |
//! |---|---|
//! | `initialize` | `server/discover`, whose answer becomes the answer: [`discover`], [`initialize_result`] |
//! | a request | the same with metadata: [`request`], and its answer without: [`answer`] |
//! | `resources/subscribe`, a GET stream | one `subscriptions/listen`: [`listen`], [`notification`] |
//! | answers to questions | the call again: [`InputRequired`], [`question`], [`input_response`], [`retry`] |
//! | `ping`, `logging/setLevel`, `notifications/initialized`, `notifications/roots/list_changed` | nothing |

use super::{
    BridgeFault, Client, Filter, LogLevel, brief,
    client::{extensions, pick, server},
    code, content,
    given::check_answer,
    is_cacheable, may_ask,
    question::for_legacy,
    rewrite::{Fate, Rewrite, at, each, is_object, is_string, message_text, object, text_at, without},
};
use crate::{Kind, Message, Revision, Span, error::result_text, key, splice::quote, walk::Walk};
use bytes::Bytes;
use std::borrow::Cow;

/// What a legacy client said of itself in `initialize`, and what it set since: what each of its requests says in the
/// modern era.
#[derive(Debug, Clone)]
pub struct Introduction {
    revision: Revision,
    client: Client,
    level: Option<LogLevel>,
}

impl Introduction {
    /// Reads an `initialize` request. A revision that is not known, or is not a legacy one, becomes the newest legacy one
    /// (2025-11-25, basic/lifecycle, "Version Negotiation").
    pub fn of(initialize: &Message) -> Result<Self, BridgeFault> {
        if initialize.kind() != Kind::Request || initialize.method() != "initialize" {
            return Err(BridgeFault::Expected("an `initialize` request"));
        }
        let asked = initialize.param(&["protocolVersion"]).and_then(|member| Revision::parse(&member.text()?));
        let revision = asked.filter(|asked| Revision::LEGACY.contains(asked)).unwrap_or(Revision::V2025_11_25);
        Ok(Self { revision, client: Client::of_initialize(initialize, revision)?, level: None })
    }

    /// The legacy revision that is spoken with the client.
    pub const fn revision(&self) -> Revision {
        self.revision
    }

    /// Who the client is and what it can be asked.
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// Leaves capabilities out of what a server is told.
    pub fn hide(&mut self, names: &[&str]) {
        self.client.hide(names);
    }

    /// From which level on the client wants log messages. Until it says so it gets none: a modern server sends them only
    /// to requests that name a level.
    pub const fn level(&self) -> Option<LogLevel> {
        self.level
    }

    /// What `logging/setLevel` does.
    pub const fn set_level(&mut self, level: LogLevel) {
        self.level = Some(level);
    }

    /// The metadata of a request, a raw object.
    pub fn metadata(&self) -> Vec<u8> {
        self.meta(object)
    }

    /// Hands the metadata of a request to `then`.
    fn meta<T>(&self, then: impl FnOnce(&[(&str, &[u8])]) -> T) -> T {
        let version = quote(Revision::V2026_07_28.as_str());
        let level = self.level.map(|level| quote(level.as_str()));
        let mut members: Vec<(&str, &[u8])> = vec![
            (key::PROTOCOL_VERSION, version.as_bytes()),
            (key::CLIENT_CAPABILITIES, self.client.capabilities().as_bytes()),
        ];
        members.extend(self.client.info().map(|info| (key::CLIENT_INFO, info.as_bytes())));
        members.extend(level.as_ref().map(|level| (key::LOG_LEVEL, level.as_bytes())));
        then(&members)
    }
}

/// Metadata that only the introduction says.
const OURS: [&str; 5] =
    [key::PROTOCOL_VERSION, key::CLIENT_CAPABILITIES, key::CLIENT_INFO, key::LOG_LEVEL, key::SUBSCRIPTION_ID];

/// A `server/discover` request. `id` is raw.
pub fn discover(id: &str, introduction: &Introduction) -> Bytes {
    let params = introduction.meta(|meta| object(&[("_meta", &object(meta))]));
    message_text(Some(id), "server/discover", Some(&params))
}

/// The answer to `initialize` with the raw id `id`, from the answer to [`discover`].
pub fn initialize_result(discovered: &Message, introduction: &Introduction, id: &str) -> Result<Bytes, BridgeFault> {
    let result = discovered.result().filter(|raw| is_object(raw)).ok_or(BridgeFault::Expected("a discover result"))?;
    let versions = at(result, &["supportedVersions"]).ok_or(BridgeFault::Malformed("supportedVersions"))?;
    if !speaks(versions, Revision::V2026_07_28) {
        return Err(BridgeFault::Version(brief(&String::from_utf8_lossy(versions))));
    }
    let revision = introduction.revision;
    let raw = at(result, &["capabilities"]).filter(|raw| is_object(raw));
    let raw = raw.ok_or(BridgeFault::Malformed("capabilities"))?;
    let mut names = vec!["experimental", "logging", "prompts", "resources", "tools"];
    if revision >= Revision::V2025_03_26 {
        names.push("completions");
    }
    let extended = at(raw, &["extensions"]).filter(|raw| is_object(raw) && revision >= Revision::V2025_11_25);
    let extended = extended.map(extensions);
    let mut capabilities = pick(raw, &names);
    if let Some(extended) = &extended {
        let mut rewrite = Rewrite::new(&capabilities);
        rewrite.object(&rewrite.whole(), |_, _, _| Fate::Keep, &[("extensions", extended)]);
        capabilities = rewrite.finish().to_vec();
    }
    let (version, server) = (quote(revision.as_str()), server(at(result, &["_meta", key::SERVER_INFO])));
    let mut members: Vec<(&str, &[u8])> =
        vec![("protocolVersion", version.as_bytes()), ("capabilities", &capabilities), ("serverInfo", &server)];
    members.extend(at(result, &["instructions"]).filter(|raw| is_string(raw)).map(|raw| ("instructions", raw)));
    Ok(result_text(id, &object(&members)))
}

fn speaks(versions: &[u8], revision: Revision) -> bool {
    let mut walk = Walk::new(versions, 0);
    while let Some(element) = walk.element() {
        if versions.get(element).and_then(|raw| text_at(raw, &[])).as_deref() == Some(revision.as_str()) {
            return true;
        }
    }
    false
}

/// A request of the client as the server hears it: with metadata, merged into what it has.
///
/// Metadata of the modern era that the client wrote itself is replaced, and answers and state of rounds that are not its
/// own go. So does `task`, which asks for a task of the legacy era; a server that was not told of tasks answers plainly.
pub fn request(message: &Message, introduction: &Introduction) -> Result<Bytes, BridgeFault> {
    if message.kind() != Kind::Request {
        return Err(BridgeFault::Expected("a request"));
    }
    let mut rewrite = Rewrite::new(message.bytes());
    introduction.meta(|meta| match message.params_member() {
        None => {
            let params = object(&[("_meta", &object(meta))]);
            rewrite.object(&rewrite.whole(), |_, _, _| Fate::Keep, &[("params", &params)]);
            Ok(())
        }
        Some(params) if params.raw == b"null" => {
            rewrite.replace(params.span, object(&[("_meta", &object(meta))]));
            Ok(())
        }
        Some(params) if is_object(params.raw) => {
            let add = object(meta);
            let add: &[(&str, &[u8])] = if at(params.raw, &["_meta"]).is_some() { &[] } else { &[("_meta", &add)] };
            let asking = may_ask(message.method());
            let fate = |rewrite: &mut Rewrite<'_>, name: &str, value: &Span| match name {
                "_meta" => without(rewrite, value, &OURS, meta),
                "inputResponses" | "requestState" | "task" if asking => Fate::Drop,
                _ => Fate::Keep,
            };
            rewrite.object(&params.span, fate, add);
            Ok(())
        }
        Some(_) => Err(BridgeFault::Malformed("params")),
    })?;
    Ok(rewrite.finish())
}

/// An answer of the server to a request for `method` as a client of `revision` hears it.
///
/// A result that asks for input is none: look for it first with [`InputRequired::of`].
pub fn answer(message: &Message, method: &str, revision: Revision) -> Result<Bytes, BridgeFault> {
    let mut rewrite = Rewrite::new(message.bytes());
    if message.error().is_some() {
        code::raise(message, method, &mut rewrite);
        return Ok(rewrite.finish_in(message.bytes()));
    }
    let result = message.result_member().ok_or(BridgeFault::Expected("an answer"))?;
    if !is_object(result.raw) {
        return Err(BridgeFault::Malformed("result"));
    }
    match result_type(result.raw)?.as_deref() {
        None | Some("complete") => {}
        Some(other) => return Err(BridgeFault::ResultType(brief(other))),
    }
    let fate = |rewrite: &mut Rewrite<'_>, name: &str, value: &Span| match name {
        "resultType" => Fate::Drop,
        "ttlMs" | "cacheScope" if is_cacheable(method) => Fate::Drop,
        "_meta" => without(rewrite, value, &[key::SERVER_INFO, key::SUBSCRIPTION_ID], &[]),
        _ => content::member(rewrite, method, name, value, revision),
    };
    rewrite.object(&result.span, fate, &[]);
    Ok(rewrite.finish_in(message.bytes()))
}

fn result_type(result: &[u8]) -> Result<Option<Cow<'_, str>>, BridgeFault> {
    match at(result, &["resultType"]) {
        None => Ok(None),
        Some(raw) => text_at(raw, &[]).map(Some).ok_or(BridgeFault::Malformed("resultType")),
    }
}

/// A notification of the server as the client hears it; `None` where the legacy era has none of its kind.
pub fn notification(message: &Message) -> Option<Bytes> {
    if matches!(message.method(), "notifications/subscriptions/acknowledged" | "notifications/tasks") {
        return None;
    }
    let mut rewrite = Rewrite::new(message.bytes());
    if let Some(params) = message.params_member() {
        let fate = |rewrite: &mut Rewrite<'_>, name: &str, value: &Span| match name {
            "_meta" => without(rewrite, value, &[key::SUBSCRIPTION_ID], &[]),
            _ => Fate::Keep,
        };
        rewrite.object(&params.span, fate, &[]);
    }
    Some(rewrite.finish_in(message.bytes()))
}

/// One question of a result that asks for input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputRequest<'a> {
    /// What its answer is called in the retry.
    pub key: Cow<'a, str>,
    /// `sampling/createMessage`, `elicitation/create` or `roots/list`.
    pub method: Cow<'a, str>,
    /// Its params, an object as sent.
    pub params: Option<&'a [u8]>,
}

/// A result that asks for input (2026-07-28, basic/patterns/mrtr).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputRequired<'a> {
    /// What is asked, in order. May be empty where there is a state: then the call is just to be made again.
    pub requests: Vec<InputRequest<'a>>,
    /// The state as sent, a string with its quotes. Where there is none the retry has none.
    pub state: Option<&'a str>,
}

impl<'a> InputRequired<'a> {
    /// Most questions in one result.
    pub const MOST: usize = 64;

    /// Reads an answer; `None` where it does not ask for input.
    pub fn of(message: &'a Message) -> Result<Option<Self>, BridgeFault> {
        let Some(result) = message.result() else { return Ok(None) };
        if result_type(result)?.as_deref() != Some("input_required") {
            return Ok(None);
        }
        let mut requests = Vec::new();
        let asked = at(result, &["inputRequests"]);
        if asked.is_some_and(|raw| !is_object(raw)) {
            return Err(BridgeFault::Malformed("inputRequests"));
        }
        for (key, raw) in asked.into_iter().flat_map(each) {
            if requests.len() == Self::MOST {
                return Err(BridgeFault::TooLarge { what: "inputRequests", most: Self::MOST });
            }
            requests.push(input_request(key, raw)?);
        }
        let state = match at(result, &["requestState"]) {
            Some(raw) if is_string(raw) => std::str::from_utf8(raw).ok(),
            Some(_) => return Err(BridgeFault::Malformed("requestState")),
            None if asked.is_none() => return Err(BridgeFault::Malformed("inputRequests")),
            None => None,
        };
        Ok(Some(Self { requests, state }))
    }
}

fn input_request<'a>(key: Cow<'a, str>, raw: &'a [u8]) -> Result<InputRequest<'a>, BridgeFault> {
    let method = text_at(raw, &["method"]).ok_or(BridgeFault::Malformed("inputRequests"))?;
    let params = at(raw, &["params"]);
    match (method.as_ref(), params) {
        ("roots/list", None) => {}
        ("sampling/createMessage" | "elicitation/create" | "roots/list", Some(params)) if is_object(params) => {}
        ("sampling/createMessage" | "elicitation/create" | "roots/list", _) => {
            return Err(BridgeFault::Malformed("inputRequests"));
        }
        _ => return Err(BridgeFault::CannotAsk { method: brief(&method), why: "no client can be asked that" }),
    }
    Ok(InputRequest { key, method, params })
}

/// The request to the client that asks it one question. `id` is its raw id, unique in the session.
pub fn question(id: &str, asked: &InputRequest<'_>, introduction: &Introduction) -> Result<Bytes, BridgeFault> {
    introduction.client.can_answer(&asked.method, asked.params)?;
    let translated = |params| for_legacy(id, &asked.method, params, introduction.revision);
    let params = asked.params.map(translated).transpose()?;
    Ok(message_text(Some(id), &asked.method, params.as_deref()))
}

/// The notification that takes a question back. `id` is its raw id.
pub fn withdrawn(id: &str) -> Bytes {
    let reason = quote("the call in the course of which it was asked is over");
    let params = object(&[("requestId", id.as_bytes()), ("reason", reason.as_bytes())]);
    message_text(None, "notifications/cancelled", Some(&params))
}

/// What the client's answer to a question for `method` is in the retry. An error to an elicitation is a cancelled one;
/// an error to anything else cannot be told to a modern server, and what is no answer to the question is not: the call ends.
pub fn input_response<'a>(answer: &'a Message, method: &str) -> Result<Cow<'a, [u8]>, BridgeFault> {
    if answer.error().is_some() {
        let declined = || BridgeFault::Declined { method: brief(method), code: answer.error_code().unwrap_or(0) };
        return no_response(method).map(Cow::Borrowed).ok_or_else(declined);
    }
    let result = answer.result().ok_or(BridgeFault::Expected("an answer"))?;
    check_answer(method, result).map(|()| Cow::Borrowed(result))
}

/// What is in the retry where a question for `method` has no answer; `None` where nothing can be.
pub fn no_response(method: &str) -> Option<&'static [u8]> {
    (method == "elicitation/create").then_some(br#"{"action":"cancel"}"#)
}

/// The call again, under the new raw id `id`, with the answers to all questions of the last round and its state.
/// `original` is the call as it was sent to the server, by [`request`] or by this.
pub fn retry(
    original: &Message,
    id: &str,
    responses: &[(&str, &[u8])],
    state: Option<&str>,
) -> Result<Bytes, BridgeFault> {
    if !may_ask(original.method()) {
        return Err(BridgeFault::Expected("a request whose result may ask for input"));
    }
    let own = original.id_member().ok_or(BridgeFault::Expected("a request"))?;
    let params = original.params_member().filter(|member| is_object(member.raw));
    let params = params.ok_or(BridgeFault::Malformed("params"))?;
    let mut rewrite = Rewrite::new(original.bytes());
    rewrite.replace(own.span, id);
    let answers = object(responses);
    let mut add: Vec<(&str, &[u8])> = Vec::new();
    if !responses.is_empty() {
        add.push(("inputResponses", &answers));
    }
    add.extend(state.map(|state| ("requestState", state.as_bytes())));
    let fate = |_: &mut Rewrite<'_>, name: &str, _: &Span| match name {
        "inputResponses" | "requestState" => Fate::Drop,
        _ => Fate::Keep,
    };
    rewrite.object(&params.span, fate, &add);
    Ok(rewrite.finish())
}

/// A `subscriptions/listen` request. `id` is raw.
pub fn listen(id: &str, introduction: &Introduction, wanted: &Filter) -> Bytes {
    let filter = wanted.text();
    let params = introduction.meta(|meta| object(&[("_meta", &object(meta)), ("notifications", &filter)]));
    message_text(Some(id), "subscriptions/listen", Some(&params))
}
