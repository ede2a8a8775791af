//! A modern client and a legacy server.
//!
//! | the client | the server hears |
//! |---|---|
//! | metadata of its first request | `initialize`: [`initialize`], [`negotiated`], [`initialized`] |
//! | `server/discover` | nothing; answered from what it said in `initialize`: [`discover_result`] |
//! | a request | the same without metadata: [`request`], and its answer with what modern results have: [`answer`] |
//! | a log level | `logging/setLevel`: [`set_level`] |
//! | `subscriptions/listen` | `resources/subscribe`, a GET stream: [`subscribe`], [`acknowledged`], [`notification`] |
//!
//! | the server | the client hears |
//! |---|---|
//! | a question in mid-call | a result that asks for input, whose retry has the answer: [`input_required`], [`input_response`], [`answer_to`] |
//! | -32042: go to these pages first | the same, and the retry is the call again: [`pages_required`] |

use super::{
    BridgeFault, Client, Filter, LogLevel, brief,
    client::{extensions, pick, server},
    code,
    content::unannotated,
    is_cacheable, may_ask,
    question::for_modern,
    rewrite::{Fate, Rewrite, at, is_object, is_string, message_text, object, text_at, without},
};
use crate::{
    Kind, Member, Message, Revision, Span,
    error::{self, error_text, result_text},
    key,
    splice::quote,
    walk::Walk,
};
use bytes::Bytes;

/// An `initialize` request that introduces a client as its request does. `id` is raw. Sessions can be shared by requests
/// of one principal whose clients have the same [`Client::key`].
pub fn initialize(id: &str, client: &Client) -> Bytes {
    let version = quote(Revision::V2025_11_25.as_str());
    let params = object(&[
        ("protocolVersion", version.as_bytes()),
        ("capabilities", client.capabilities().as_bytes()),
        ("clientInfo", client.info_or_nobody()),
    ]);
    message_text(Some(id), "initialize", Some(&params))
}

/// The revision that the server chose.
pub fn negotiated(initialized: &Message) -> Result<Revision, BridgeFault> {
    let chosen = initialized.outcome_member(&["protocolVersion"]);
    let chosen = chosen.and_then(|member| member.text().map(std::borrow::Cow::into_owned));
    let chosen = chosen.ok_or(BridgeFault::Malformed("protocolVersion"))?;
    let known = Revision::parse(&chosen).filter(|revision| Revision::LEGACY.contains(revision));
    known.ok_or_else(|| BridgeFault::Version(brief(&chosen)))
}

/// The notification that ends the handshake.
pub fn initialized() -> Bytes {
    message_text(None, "notifications/initialized", None)
}

/// What the server says of itself in its answer to `initialize`, raw: what [`answer`] puts into results.
pub fn server_info(initialized: &Message) -> Option<&[u8]> {
    let raw = initialized.outcome_member(&["serverInfo"])?.raw;
    super::client::identity(raw, usize::MAX).map(|_| raw)
}

/// The answer to `server/discover` with the raw id `id`, from the server's answer to `initialize`.
pub fn discover_result(initialized: &Message, id: &str) -> Result<Bytes, BridgeFault> {
    let result = initialized.result().filter(|raw| is_object(raw));
    let result = result.ok_or(BridgeFault::Expected("an initialize result"))?;
    let raw = at(result, &["capabilities"]).filter(|raw| is_object(raw));
    let raw = raw.ok_or(BridgeFault::Malformed("capabilities"))?;
    let mut capabilities = pick(raw, &["completions", "experimental", "logging", "prompts", "resources", "tools"]);
    if let Some(extended) = at(raw, &["extensions"]).filter(|raw| is_object(raw)).map(extensions) {
        let mut rewrite = Rewrite::new(&capabilities);
        rewrite.object(&rewrite.whole(), |_, _, _| Fate::Keep, &[("extensions", &extended)]);
        capabilities = rewrite.finish().to_vec();
    }
    let versions = format!("[{}]", quote(Revision::V2026_07_28.as_str()));
    let meta = object(&[(key::SERVER_INFO, &server(at(result, &["serverInfo"])))]);
    let mut members: Vec<(&str, &[u8])> =
        vec![("resultType", COMPLETE), ("supportedVersions", versions.as_bytes()), ("capabilities", &capabilities)];
    members.extend(at(result, &["instructions"]).filter(|raw| is_string(raw)).map(|raw| ("instructions", raw)));
    members.extend(NOT_KEPT);
    members.push(("_meta", &meta));
    Ok(result_text(id, &object(&members)))
}

const COMPLETE: &[u8] = b"\"complete\"";
/// Legacy servers do not say for whom a result is and how long it holds.
const NOT_KEPT: [(&str, &[u8]); 2] = [("ttlMs", b"0"), ("cacheScope", b"\"private\"")];

/// A request of the client as the server hears it: without the metadata and the members of the modern era. Other
/// metadata stays as it is, progress tokens too.
pub fn request(message: &Message) -> Result<Bytes, BridgeFault> {
    const MODERN: [&str; 5] =
        [key::PROTOCOL_VERSION, key::CLIENT_CAPABILITIES, key::CLIENT_INFO, key::LOG_LEVEL, key::SUBSCRIPTION_ID];
    if message.kind() != Kind::Request {
        return Err(BridgeFault::Expected("a request"));
    }
    let mut rewrite = Rewrite::new(message.bytes());
    if let Some(params) = message.params_member() {
        let asking = may_ask(message.method());
        let fate = |rewrite: &mut Rewrite<'_>, name: &str, value: &Span| match name {
            "_meta" => without(rewrite, value, &MODERN, &[]),
            // SECURITY: `task` would begin a task of the legacy era, which nobody would own.
            "inputResponses" | "requestState" | "task" if asking => Fate::Drop,
            _ => Fate::Keep,
        };
        rewrite.object(&params.span, fate, &[]);
    }
    Ok(rewrite.finish_in(message.bytes()))
}

/// An answer of the server to a request for `method`, about the raw address `uri` where it is about one, as the client
/// hears it. `server` is [`server_info`].
pub fn answer(
    message: &Message,
    method: &str,
    uri: Option<&[u8]>,
    server: Option<&[u8]>,
) -> Result<Bytes, BridgeFault> {
    let mut rewrite = Rewrite::new(message.bytes());
    if message.error().is_some() {
        code::lower(message, method, uri, &mut rewrite);
        if message.id() == Some("null") {
            // The modern era leaves it out.
            rewrite.object(&rewrite.whole(), |_, name, _| if name == "id" { Fate::Drop } else { Fate::Keep }, &[]);
        }
        return Ok(rewrite.finish_in(message.bytes()));
    }
    let result = message.result_member().ok_or(BridgeFault::Expected("an answer"))?;
    if !is_object(result.raw) {
        return Err(BridgeFault::Malformed("result"));
    }
    let meta: Vec<(&str, &[u8])> = server.map(|server| (key::SERVER_INFO, server)).into_iter().collect();
    let new_meta = object(&meta);
    let mut add: Vec<(&str, &[u8])> = vec![("resultType", COMPLETE)];
    if is_cacheable(method) {
        add.extend(NOT_KEPT);
    }
    if server.is_some() && at(result.raw, &["_meta"]).is_none() {
        add.push(("_meta", &new_meta));
    }
    let fate = |rewrite: &mut Rewrite<'_>, name: &str, value: &Span| match name {
        // A legacy server means nothing by these.
        "resultType" => Fate::Drop,
        "inputRequests" | "requestState" if may_ask(method) => Fate::Drop,
        "ttlMs" | "cacheScope" if is_cacheable(method) => Fate::Drop,
        "_meta" => without(rewrite, value, &[key::RELATED_TASK, key::SERVER_INFO], &meta),
        "tools" if method == "tools/list" => {
            rewrite.array(value, |rewrite, tool| unannotated(rewrite, &tool));
            Fate::Keep
        }
        _ => Fate::Keep,
    };
    rewrite.object(&result.span, fate, &add);
    Ok(rewrite.finish())
}

/// A tool of the server's list as the client reads it, where a list is made of those of several servers.
pub fn tool(entry: &[u8]) -> Bytes {
    let mut rewrite = Rewrite::new(entry);
    let whole = rewrite.whole();
    unannotated(&mut rewrite, &whole);
    rewrite.finish()
}

/// A notification of the server as the client hears it; `None` where the modern era has none of its kind.
/// `subscription` is the raw id of the `subscriptions/listen` request it belongs to, if it belongs to one.
pub fn notification(message: &Message, subscription: Option<&str>) -> Option<Bytes> {
    if matches!(message.method(), "notifications/elicitation/complete" | "notifications/tasks/status") {
        return None;
    }
    let meta: Vec<(&str, &[u8])> = subscription.map(|id| (key::SUBSCRIPTION_ID, id.as_bytes())).into_iter().collect();
    let gone = [key::RELATED_TASK, key::SUBSCRIPTION_ID];
    let mut rewrite = Rewrite::new(message.bytes());
    let new_meta = object(&meta);
    match message.params_member() {
        Some(params) if is_object(params.raw) => {
            let add: &[(&str, &[u8])] =
                if meta.is_empty() || at(params.raw, &["_meta"]).is_some() { &[] } else { &[("_meta", &new_meta)] };
            let fate = |rewrite: &mut Rewrite<'_>, name: &str, value: &Span| match name {
                "_meta" => without(rewrite, value, &gone, &meta),
                _ => Fate::Keep,
            };
            rewrite.object(&params.span, fate, add);
        }
        Some(params) if !meta.is_empty() => rewrite.replace(params.span, object(&[("_meta", &new_meta)])),
        None if !meta.is_empty() => {
            let params = object(&[("_meta", &new_meta)]);
            rewrite.object(&rewrite.whole(), |_, _, _| Fate::Keep, &[("params", &params)]);
        }
        None | Some(_) => {}
    }
    Some(rewrite.finish_in(message.bytes()))
}

/// A `logging/setLevel` request. It holds for the whole session: whoever shares one sets the least level of all and
/// leaves out what a request did not want ([`LogLevel::wanted`]).
pub fn set_level(id: &str, level: LogLevel) -> Bytes {
    let params = object(&[("level", quote(level.as_str()).as_bytes())]);
    message_text(Some(id), "logging/setLevel", Some(&params))
}

/// A `resources/subscribe` request, or one that takes it back.
pub fn subscribe(id: &str, uri: &str, subscribed: bool) -> Bytes {
    let method = if subscribed { "resources/subscribe" } else { "resources/unsubscribe" };
    message_text(Some(id), method, Some(&object(&[("uri", quote(uri).as_bytes())])))
}

/// The first message on the stream of a `subscriptions/listen` request: what of it is honoured.
pub fn acknowledged(listen: &Message, honoured: &Filter) -> Result<Bytes, BridgeFault> {
    let meta = tagged(listen)?;
    let params = object(&[("_meta", &meta), ("notifications", &honoured.text())]);
    Ok(message_text(None, "notifications/subscriptions/acknowledged", Some(&params)))
}

/// The last message on that stream: it ends because we want it to.
pub fn listen_result(listen: &Message) -> Result<Bytes, BridgeFault> {
    ending(listen, &tagged(listen)?)
}

/// The same where the gateway stops, or the client may follow others: it has missed nothing so far.
pub fn listen_again(listen: &Message) -> Result<Bytes, BridgeFault> {
    let id = subscription(listen)?;
    ending(listen, &object(&[(key::SUBSCRIPTION_ID, id.as_bytes()), (key::LISTEN_AGAIN, b"true")]))
}

fn ending(listen: &Message, meta: &[u8]) -> Result<Bytes, BridgeFault> {
    Ok(result_text(subscription(listen)?, &object(&[("resultType", COMPLETE), ("_meta", meta)])))
}

fn tagged(listen: &Message) -> Result<Vec<u8>, BridgeFault> {
    Ok(object(&[(key::SUBSCRIPTION_ID, subscription(listen)?.as_bytes())]))
}

fn subscription(listen: &Message) -> Result<&str, BridgeFault> {
    let expected = BridgeFault::Expected("a `subscriptions/listen` request");
    if listen.method() != "subscriptions/listen" {
        return Err(expected);
    }
    listen.id().ok_or(expected)
}

/// The answer to the call with the raw id `id` that asks the client one question of the server in its place. `key` names
/// the answer in the retry; `state` is a string as JSON. `client` is that of the call.
pub fn input_required(
    id: &str,
    key: &str,
    question: &Message,
    client: &Client,
    state: &str,
) -> Result<Bytes, BridgeFault> {
    if question.kind() != Kind::Request {
        return Err(BridgeFault::Expected("a request"));
    }
    let params = question.params().filter(|raw| is_object(raw));
    client.can_answer(question.method(), params)?;
    if params.is_none() && question.method() != "roots/list" {
        return Err(BridgeFault::Malformed("params"));
    }
    let (method, params) = (quote(question.method()), params.map(for_modern));
    let mut asked: Vec<(&str, &[u8])> = vec![("method", method.as_bytes())];
    asked.extend(params.as_deref().map(|params| ("params", params)));
    Ok(asking(id, &object(&[(key, &object(&asked))]), Some(state)))
}

/// The answer to the call with the raw id `id` where the server said that pages must be visited first (2025-11-25,
/// client/elicitation, "URL Elicitation Required Error"); `None` where it did not. The retry is the call again: nothing
/// of it waits at the server.
pub fn pages_required(id: &str, answer: &Message, client: &Client) -> Result<Option<Bytes>, BridgeFault> {
    if answer.error_code() != Some(-32042) {
        return Ok(None);
    }
    let pages = super::upward::InputRequest::pages_of(answer)?;
    if pages.is_empty() {
        return Err(BridgeFault::Malformed("elicitations"));
    }
    let mut asked = Vec::with_capacity(pages.len());
    for page in &pages {
        let params = page.params.unwrap_or_default();
        if text_at(params, &["mode"]).as_deref() != Some("url") {
            return Err(BridgeFault::Malformed("elicitations"));
        }
        client.can_answer(&page.method, Some(params))?;
        let request = object(&[("method", b"\"elicitation/create\""), ("params", &for_modern(params))]);
        asked.push((page.key.to_string(), request));
    }
    let members: Vec<(&str, &[u8])> = asked.iter().map(|(key, text)| (key.as_str(), text.as_slice())).collect();
    Ok(Some(asking(id, &object(&members), None)))
}

fn asking(id: &str, requests: &[u8], state: Option<&str>) -> Bytes {
    let mut members: Vec<(&str, &[u8])> = vec![("resultType", b"\"input_required\""), ("inputRequests", requests)];
    members.extend(state.map(|state| ("requestState", state.as_bytes())));
    result_text(id, &object(&members))
}

/// The state that a retry brings back. Not trusted: the caller made it and checks it.
pub fn request_state(message: &Message) -> Option<Member<'_>> {
    may_ask(message.method()).then(|| message.param(&["requestState"]))?
}

/// The answer that a retry has for the question called `key`, an object as sent.
pub fn input_response<'a>(retry: &'a Message, key: &str) -> Option<&'a [u8]> {
    let found = may_ask(retry.method()).then(|| retry.param(&["inputResponses", key]))??;
    is_object(found.raw).then_some(found.raw)
}

/// The response to a question of the server, `method` with the raw id `id`, with an answer of the client. `revision` is what was
/// negotiated with the server: older ones take one block of content where newer ones take a list of them. An answer
/// that it has no words for is an error that says so.
pub fn answer_to(id: &str, method: &str, response: &[u8], revision: Revision) -> Bytes {
    let mut rewrite = Rewrite::new(response);
    let mut unsaid = None;
    // A form that was filled in has a `content` of its own.
    if method == "sampling/createMessage" && revision < Revision::V2025_11_25 {
        let fate = |rewrite: &mut Rewrite<'_>, name: &str, value: &Span| match name {
            "content" => one_block(rewrite.raw(value), revision).unwrap_or_else(|fault| {
                unsaid = Some(fault);
                Fate::Keep
            }),
            _ => Fate::Keep,
        };
        rewrite.object(&rewrite.whole(), fate, &[]);
    }
    match unsaid {
        Some(fault) => error_text(Some(id), error::INTERNAL, &fault.to_string(), None),
        None => result_text(id, &rewrite.finish()),
    }
}

/// Sampled content as the one block that revisions before 2025-11-25 have: several texts become one, a line each.
fn one_block(content: &[u8], revision: Revision) -> Result<Fate, BridgeFault> {
    let unsayable = |what| BridgeFault::Content { revision, what };
    if !is_object(content) && !content.starts_with(b"[") {
        return Err(BridgeFault::Malformed("content"));
    }
    let mut walk = Walk::new(content, 0);
    let blocks: Vec<&[u8]> =
        if is_object(content) { vec![content] } else { std::iter::from_fn(|| content.get(walk.element()?)).collect() };
    if let [block] = blocks.as_slice() {
        let block = holds(revision, block).then(|| block.to_vec());
        return block.map(Fate::Become).ok_or_else(|| unsayable("content of that type"));
    }
    let mut lines = Vec::with_capacity(blocks.len());
    for block in blocks {
        if text_at(block, &["type"]).as_deref() != Some("text") {
            return Err(unsayable("several blocks that are not all text"));
        }
        lines.push(text_at(block, &["text"]).ok_or(BridgeFault::Malformed("text"))?);
    }
    Ok(Fate::Become(object(&[("type", b"\"text\""), ("text", quote(&lines.join("\n")).as_bytes())])))
}

/// Whether a revision before 2025-11-25 has such a block in what is sampled.
fn holds(revision: Revision, block: &[u8]) -> bool {
    match text_at(block, &["type"]).as_deref() {
        Some("text" | "image") => true,
        Some("audio") => revision >= Revision::V2025_03_26,
        Some(_) | None => false,
    }
}
