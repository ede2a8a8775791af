//! What comes back, before the client sees it: lists narrowed to what the caller may see, secrets masked.
//!
//! What is stopped here has already happened: it is *withheld*, never *refused*.

use crate::{
    call::Route,
    catalog,
    flow::Flow,
    forward::{Answer, Exchange},
    inspect::{self, Part},
    known::{self, KnownList},
    pipeline::Line,
    resolve::{One, Target},
    server::Server,
    session::Session,
    stop::{Stage, Stop},
    text,
    trail::{Facts, Noted},
    upstream::{self, Arrival, http as wire},
    veil,
};
use audit::Fingerprint;
use bytes::Bytes;
use guard::{Carry, Verdict};
use http::{HeaderMap, HeaderValue, StatusCode, header::CONTENT_TYPE};
use mcp::{Body, Era, Kind, ListKind, Message, Revision, error, sse::Beside};
use std::{collections::BTreeMap, sync::Arc};
use vocab::{Action, Finding, Side};

/// What the texts of HTTP errors go on as.
static TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
static PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");

/// As much of a revision that is none as is shown.
const LONGEST_REVISION: usize = 64;
/// What is shown of one that must not be.
const HIDDEN: &str = "[hidden]";

/// What the client may see.
#[must_use]
pub(crate) enum Released {
    /// A status without a message.
    Bare {
        /// The status.
        status: StatusCode,
        /// Headers.
        headers: Box<HeaderMap>,
        /// What is left of the call.
        exchange: Box<Exchange>,
    },
    /// One message.
    Whole {
        /// The status.
        status: StatusCode,
        /// Headers.
        headers: Box<HeaderMap>,
        /// The message.
        body: Bytes,
        /// What is known of it.
        said: Box<Said>,
        /// What is left of the call.
        exchange: Box<Exchange>,
    },
    /// A stream, whose messages are released one by one as they come.
    Stream {
        /// Headers.
        headers: Box<HeaderMap>,
        /// The stream.
        flow: Box<Flow>,
    },
}

/// What a released message said, for the record.
#[derive(Default)]
pub(crate) struct Said {
    /// What detectors found.
    pub findings: Vec<Finding>,
    /// The server says that the call failed.
    pub failed: bool,
    /// The code of its error.
    pub code: Option<i64>,
    /// The text the record commits to: parameters, result or error.
    pub text: Bytes,
    /// Nothing that was found is in it: it may be kept.
    pub clear: bool,
    /// The fingerprint of that text, where it is known already.
    known: Option<Fingerprint>,
}

impl Noted for Released {
    const STAGE: Stage = Stage::Release;

    fn note(&self, facts: &mut Facts) {
        match self {
            Self::Whole { said, .. } => said.note(facts),
            Self::Bare { status, .. } => facts.failed = !status.is_success(),
            Self::Stream { .. } => facts.streamed = true,
        }
    }
}

impl Said {
    /// Of a message in which nothing is looked for.
    pub(crate) fn of(message: &Message) -> Self {
        Self {
            findings: Vec::new(),
            failed: message.is_failure(),
            code: message.error_code(),
            text: message.said(),
            clear: true,
            known: None,
        }
    }

    /// What the record commits to.
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        self.known.unwrap_or_else(|| Fingerprint::of(&self.text))
    }

    /// Writes down what was said.
    pub(crate) fn note(&self, facts: &mut Facts) {
        facts.findings.extend(self.findings.iter().cloned());
        facts.failed |= self.failed;
        facts.code = facts.code.or(self.code);
    }
}

impl Line {
    /// Releases an answer.
    pub(crate) fn release(&self, answer: Answer) -> Result<Released, Stop> {
        let Answer { arrival, exchange, .. } = answer;
        match arrival {
            Arrival::Bare { status, headers, text } => self.release_bare(status, headers, &text, exchange),
            Arrival::Stream { headers, source } => {
                Ok(Released::Stream { headers, flow: Box::new(Flow::new(source, exchange)) })
            }
            Arrival::Whole { status, mut headers, body } => {
                // It goes on as what it is, whatever it was called.
                headers.remove(CONTENT_TYPE);
                let (message, known) = match self.read_answer(&body, &exchange) {
                    Ok(read) => read,
                    // In a batch its status reaches nobody.
                    Err(_) if !status.is_success() && exchange.call.batch.is_none() => {
                        return self.release_error(status, headers, &body, exchange);
                    }
                    Err(stop) => return Err(stop),
                };
                // An error of HTTP need not name the request: servers that doubt session or headers have not read it. In a
                // batch it would be read as what it looks like.
                if (status.is_success() || exchange.call.batch.is_some()) && !answers(&exchange, &message) {
                    return Err(Stop::withheld("answer-id", error::INTERNAL, "the server answered another request"));
                }
                if exchange.call.batch.is_some()
                    && exchange.call.is_request()
                    && message.id().is_none_or(|id| id == "null")
                {
                    return Err(no_answer(NO_ANSWER, format!("HTTP {status} with an error that names no request")));
                }
                if let Some(one) = exchange.target.one() {
                    if status.is_success() {
                        self.judge_asked(&one.server, &exchange, &message)?;
                    } else {
                        self.judge_body(&one.server, &exchange, &body)?;
                    }
                }
                let (body, mut said) = self.release_known(&message, &exchange, &mut Carry::default(), known)?;
                // Whatever it says: to the client HTTP failed.
                said.failed |= !status.is_success();
                let body = match exchange.target.one() {
                    Some(one) => self.as_shown(body, &message, &exchange, &one.server)?,
                    None => body,
                };
                Ok(Released::Whole { status, headers, body, said: Box::new(said), exchange })
            }
        }
    }

    /// Releases a status without a message.
    fn release_bare(
        &self,
        status: StatusCode,
        mut headers: Box<HeaderMap>,
        text: &Bytes,
        exchange: Box<Exchange>,
    ) -> Result<Released, Stop> {
        let is_error = status.is_client_error() || status.is_server_error();
        // Only a message answers a request: a page to sign in comes with 200, too. On the common stream of a batch no
        // status says anything, and who asked would wait.
        if exchange.call.is_request() && (!is_error || exchange.call.batch.is_some()) {
            let is_nameless = status == StatusCode::OK && !headers.contains_key(CONTENT_TYPE);
            let why = if is_nameless { "the server gave no answer with a `Content-Type`" } else { NO_ANSWER };
            return Err(no_answer(why, upstream::no_message(status, &headers)));
        }
        let kind = headers.remove(CONTENT_TYPE);
        if text.is_empty() || exchange.call.batch.is_some() {
            return Ok(Released::Bare { status, headers, exchange });
        }
        // SECURITY: nothing that a browser would run, whatever the server calls it.
        let is_problem = kind.is_some_and(|kind| wire::starts_with(kind.as_bytes(), PROBLEM.as_bytes()));
        headers.insert(CONTENT_TYPE, if is_problem { PROBLEM.clone() } else { TEXT.clone() });
        self.release_error(status, headers, text, exchange)
    }

    /// Releases what comes with an HTTP error and is no message: its status means something to the client. It is JSON, or
    /// a text where the headers say so.
    fn release_error(
        &self,
        status: StatusCode,
        headers: Box<HeaderMap>,
        body: &Bytes,
        exchange: Box<Exchange>,
    ) -> Result<Released, Stop> {
        let is_json = mcp::value(body).is_ok();
        let is_text = headers.get(CONTENT_TYPE) == Some(&TEXT);
        // Detectors read JSON: they see a text as a string.
        let readable = if is_json { Some(body.clone()) } else { quoted(body).filter(|_| is_text) };
        let bare = |mut headers: Box<HeaderMap>, exchange| {
            headers.remove(CONTENT_TYPE);
            Ok(Released::Bare { status, headers, exchange })
        };
        let Some(readable) = readable else { return bare(headers, exchange) };
        if let Some(one) = exchange.target.one().filter(|_| is_json) {
            self.judge_body(&one.server, &exchange, body)?;
        }
        let screening = self.snapshot.guards.release(&readable, &mut Carry::default());
        let clear = text::is_clear(&screening);
        let body = match screening.verdict {
            Verdict::Clean => Some(body.clone()),
            Verdict::Masked(masked) if is_json => Some(masked.into()),
            Verdict::Masked(masked) => unquoted(&masked),
            Verdict::Refused => None,
        };
        let Some(body) = body else { return bare(headers, exchange) };
        let (mut findings, text) = (screening.findings, body.clone());
        findings.extend(veil::hidden_in(&body));
        let said = Box::new(Said { findings, failed: true, code: None, text, clear, known: None });
        Ok(Released::Whole { status, headers, body, said, exchange })
    }

    fn read(&self, body: Bytes) -> Result<Message, Stop> {
        match mcp::scan(body, &self.snapshot.answer_limits()) {
            Ok(Body::Single(message)) => Ok(message),
            // Each request goes to its server alone, also one out of a batch.
            Ok(Body::Batch(_)) => {
                let why = "the server answered one request with a batch, which is not taken";
                Err(Stop::withheld("upstream-protocol", error::UPSTREAM_DOWN, why))
            }
            Err(fault) => Err(not_mcp(&fault.to_string())),
        }
    }

    /// Reads an answer. A list that is known is recognized.
    fn read_answer(&self, body: &Bytes, exchange: &Exchange) -> Result<(Message, Option<Arc<KnownList>>), Stop> {
        let known = listing(exchange).and_then(|server| server.lists.read(body, &self.snapshot.answer_limits()));
        match known {
            Some((message, list)) => Ok((message, Some(list))),
            None => self.read(body.clone()).map(|message| (message, None)),
        }
    }

    /// Releases one message of a server: a response or a notification.
    pub(crate) fn release_message(
        &self,
        message: &Message,
        exchange: &Exchange,
        carry: &mut Carry,
    ) -> Result<(Bytes, Said), Stop> {
        self.release_known(message, exchange, carry, None)
    }

    fn release_known(
        &self,
        message: &Message,
        exchange: &Exchange,
        carry: &mut Carry,
        known: Option<Arc<KnownList>>,
    ) -> Result<(Bytes, Said), Stop> {
        let known = known.or_else(|| self.recognize(message, exchange));
        let narrowed = self.narrow(message, exchange)?;
        let is_whole = narrowed.is_none();
        let message = narrowed.as_ref().unwrap_or(message);
        self.keep_task(message, exchange)?;
        self.agree(message, exchange)?;
        let mut said = Said::of(message);
        if let Some(known) = known.filter(|_| !message.has_more()) {
            // What is clean as a whole is clean in its parts.
            said.known = is_whole.then_some(known.fingerprint);
            return Ok((message.bytes().clone(), said));
        }
        let hidden = if has_credential(exchange) { veil::hidden(message) } else { Vec::new() };
        let (body, mut said) = self.release_part(message, said, carry)?;
        said.findings.extend(hidden);
        Ok((body, said))
    }

    /// Releases what a server asks.
    pub(crate) fn release_question(&self, question: &Message) -> Result<(Bytes, Said), Stop> {
        let (body, mut said) = self.release_part(question, Said::of(question), &mut Carry::default())?;
        said.findings.extend(veil::hidden(question));
        Ok((body, said))
    }

    /// Whether what is no message may pass as it is, and what was found in it. Nothing waits for it: it is never masked.
    pub(crate) fn release_aside(&self, data: &Bytes) -> (bool, Vec<Finding>) {
        let Some(readable) = quoted(data).or_else(|| Some(data.clone()).filter(|data| says_nothing(data))) else {
            return (false, Vec::new());
        };
        let mut screening = self.snapshot.guards.release(&readable, &mut Carry::default());
        screening.findings.extend(veil::hidden_in(data));
        (matches!(screening.verdict, Verdict::Clean), screening.findings)
    }

    /// What stands beside the data of an event, masked; empty if nothing of it may pass, and `None` if it may as it is. An id
    /// may look random by right.
    pub(crate) fn release_beside(&self, text: Beside<'_>, findings: &mut Vec<Finding>) -> Option<Vec<u8>> {
        let guards = &self.snapshot.guards;
        let (name, text) = match text {
            Beside::Id(id) => ("id", id),
            Beside::Line(line) => ("line", line),
        };
        // As clients read it.
        let text = String::from_utf8_lossy(text);
        if guards.is_clean_result(&text) {
            return None;
        }
        let readable = format!("{{\"{name}\":{}}}", mcp::quote(&text));
        let screening = guards.release(readable.as_bytes(), &mut Carry::default());
        findings.extend(screening.findings);
        match screening.verdict {
            Verdict::Clean => None,
            Verdict::Refused => Some(Vec::new()),
            Verdict::Masked(masked) => {
                let read = serde_json::from_slice::<BTreeMap<&str, String>>(&masked);
                let masked = read.ok().and_then(|mut members| members.remove(name));
                Some(masked.unwrap_or_default().into_bytes())
            }
        }
    }

    /// Looks at what a message says, and at what stands beside that.
    fn release_part(&self, message: &Message, mut said: Said, carry: &mut Carry) -> Result<(Bytes, Said), Stop> {
        let guards = &self.snapshot.guards;
        if guards.is_off(Side::Result) {
            return Ok((message.bytes().clone(), said));
        }
        let inspected = inspect::message(message, |text, part| match part {
            Part::Said => guards.release(text, carry),
            Part::Beside => guards.release(text, &mut Carry::default()),
        });
        (said.clear, said.findings) = (inspected.clear, inspected.findings);
        let Some(mut edits) = inspected.edits else {
            let large = inspect::too_large(message);
            let why = match large {
                Some(what) => format!(
                    "the call was made, but its answer holds {what}: what cannot be looked into does not pass \
                     (`detect.secrets.results`)"
                ),
                None => "the call was made, but its result contains what must not pass and cannot be masked".to_owned(),
            };
            return Err(Stop::withheld("guard", error::WITHHELD, why));
        };
        if edits.is_empty() {
            return Ok((message.bytes().clone(), said));
        }
        let place = message.said_member().map(|part| part.span);
        if let Some((_, masked)) = edits.iter().find(|(span, _)| Some(span) == place.as_ref()) {
            said.text = Bytes::copy_from_slice(masked);
        }
        Ok((mcp::splice(message.bytes(), &mut edits), said))
    }

    /// A list that came before, or is clean and may come again.
    fn recognize(&self, message: &Message, exchange: &Exchange) -> Option<Arc<KnownList>> {
        let lists = &listing(exchange).filter(|_| message.kind() == Kind::Response)?.lists;
        let result = message.result().filter(|result| result.len() <= known::BYTES)?;
        lists.find(result).or_else(|| {
            let screening = self.snapshot.guards.release(result, &mut Carry::default());
            let is_clean = screening.findings.is_empty()
                && matches!(screening.verdict, Verdict::Clean)
                && veil::hidden_in(result).is_none();
            is_clean.then(|| lists.keep(message)).flatten()
        })
    }

    /// Takes out of a list what the caller may not see. Everything else keeps its bytes.
    fn narrow(&self, message: &Message, exchange: &Exchange) -> Result<Option<Message>, Stop> {
        let Target::One(one) = &exchange.target else { return Ok(None) };
        if message.kind() != Kind::Response || message.result().is_none() {
            return Ok(None);
        }
        if let Some(request) = exchange.call.message() {
            if request.method() == "tasks/list" {
                return self.own_tasks(message, exchange).map(|own| self.read(own)).transpose();
            }
            let kind = mcp::method::list_kind(request.method());
            return kind.map_or(Ok(None), |kind| self.narrow_kind(message, exchange, one, kind));
        }
        // SECURITY: a resumed stream gives answers again, and nobody knows to what: whatever looks like a list is one.
        let mut narrowed: Option<Message> = None;
        for kind in ListKind::ALL {
            let message = narrowed.as_ref().unwrap_or(message);
            if mcp::list::entries(message, kind).is_ok() {
                narrowed = self.narrow_kind(message, exchange, one, kind)?.or(narrowed);
            }
        }
        match self.own_tasks(narrowed.as_ref().unwrap_or(message), exchange) {
            Some(own) => self.read(own).map(Some),
            None => Ok(narrowed),
        }
    }

    fn narrow_kind(
        &self,
        message: &Message,
        exchange: &Exchange,
        one: &One,
        kind: ListKind,
    ) -> Result<Option<Message>, Stop> {
        self.passes(&one.server, exchange.call.era, kind, message);
        // Most callers see all of a server: then a thousand names need not be asked for one by one.
        if self.snapshot.policies.sees_all(&exchange.caller.subject, list_action(kind), one.server.root()) {
            return Ok(None);
        }
        let mut hidden = false;
        let narrowed = mcp::list::narrow(message, kind, |entry| {
            let visible = self.sees(exchange, one, kind, &entry.name);
            hidden |= !visible;
            visible
        })
        .map_err(|fault| not_mcp(&fault.to_string()))?;
        if !hidden {
            return Ok(None);
        }
        // SPEC: what depends on the caller must not be shared by caches (2026-07-28, "Caching").
        let narrowed = self.read(narrowed)?;
        self.read(catalog::private(&narrowed)).map(Some)
    }

    /// Takes over the revision that an answer to `initialize` agrees on: it need not be the one that was asked for. A session
    /// that was opened for an answer that turns out to be an error is none, and neither is one of a revision that nobody
    /// here knows: each of its messages would be refused for the version it names.
    fn agree(&self, message: &Message, exchange: &Exchange) -> Result<(), Stop> {
        if message.kind() != Kind::Response {
            return Ok(());
        }
        let session = exchange.opened.as_ref().or_else(|| resumed(message, exchange));
        // Servers without session ids open none.
        let introduces = || exchange.call.message().is_some_and(|asked| asked.method() == "initialize");
        if session.is_none() && !introduces() {
            return Ok(());
        }
        if message.error().is_some() {
            let Some(session) = session else { return Ok(()) };
            self.state.end_session(session);
            if let Some(one) = exchange.target.one() {
                self.state.look_at_misfit(&one.server, Era::Legacy);
            }
            return Ok(());
        }
        let agreed = message.outcome_member(&["protocolVersion"]).and_then(|version| version.text());
        let Some(agreed) = agreed else { return Ok(()) };
        let spoken = Revision::parse(&agreed).filter(|revision| revision.era() == Era::Legacy);
        match (spoken, session) {
            (Some(revision), Some(session)) => session.agree(revision),
            (Some(_), None) => {}
            (None, session) => {
                if let Some(session) = session {
                    self.state.end_session(session);
                }
                return Err(self.unknown_revision(&agreed, exchange));
            }
        }
        Ok(())
    }

    /// SPEC: a client disconnects where it does not speak what the server answered (2025-11-25, basic/lifecycle, "Version
    /// Negotiation"). Here it is the gateway that does not, and only its client can be told.
    fn unknown_revision(&self, agreed: &str, exchange: &Exchange) -> Stop {
        let asked = exchange.call.message().and_then(|message| message.param(&["protocolVersion"]));
        let asked = asked.and_then(|version| version.text()).unwrap_or_default();
        let known = Revision::LEGACY.map(Revision::as_str);
        // SECURITY: the words are the server's.
        let shown: String = agreed.chars().take(LONGEST_REVISION).collect();
        let shown = if self.snapshot.guards.is_clean_result(&shown) { shown } else { HIDDEN.to_owned() };
        let server = exchange.target.one().map_or_else(String::new, |one| format!(" `{}`", one.server.name));
        let why =
            format!("server{server} agreed to revision `{shown}`, which is not spoken here; {} are", known.join(", "));
        Stop::withheld("revision", error::INVALID_PARAMS, why)
            .data("requested", asked.chars().take(LONGEST_REVISION).collect::<String>())
            .data("agreed", shown)
            .data("supported", known.to_vec())
    }

    fn sees(&self, exchange: &Exchange, one: &One, kind: ListKind, name: &str) -> bool {
        let resource = one.server.resource(name);
        self.snapshot.policies.visible(&exchange.caller.subject, list_action(kind), &resource)
    }
}

/// Whether what answers was given a credential, which it may tell.
fn has_credential(exchange: &Exchange) -> bool {
    match &exchange.target {
        Target::One(one) => !one.server.credentials.is_empty(),
        Target::Many(many) => many.members.iter().any(|server| !server.credentials.is_empty()),
    }
}

/// The server whose list is asked for.
fn listing(exchange: &Exchange) -> Option<&Server> {
    let one = exchange.target.one()?;
    mcp::method::list_kind(exchange.call.message()?.method()).map(|_| &*one.server)
}

/// The session whose `initialize` a message answers on a stream that its client took up again.
fn resumed<'e>(message: &Message, exchange: &'e Exchange) -> Option<&'e Arc<Session>> {
    let session = exchange.target.session().filter(|session| matches!(session.route, Route::One(_)))?;
    let introduces = exchange.call.message().is_none() && message.outcome_member(&["serverInfo"]).is_some();
    (introduces && message.error().is_none()).then_some(session)
}

/// What entries of a list are for.
pub(crate) const fn list_action(kind: ListKind) -> Action {
    match kind {
        ListKind::Tools => Action::ToolExecute,
        ListKind::Prompts => Action::PromptGet,
        ListKind::Resources | ListKind::Templates => Action::ResourceRead,
    }
}

/// Whether a response belongs to the request of the exchange.
pub(crate) fn answers(exchange: &Exchange, message: &Message) -> bool {
    if message.kind() != Kind::Response {
        return false;
    }
    match (exchange.call.message().and_then(Message::id), message.id()) {
        // An error about a message that could not be read has no id, or `null` (JSON-RPC 2.0 §5).
        (_, None | Some("null")) => message.error().is_some(),
        (Some(asked), Some(answered)) => asked == answered || mcp::id_key(asked) == mcp::id_key(answered),
        (None, Some(_)) => false,
    }
}

/// A text as a string of JSON. `None`: it is not UTF-8, or SECURITY: it begins like JSON, and some client may read as such
/// what could not be judged.
fn quoted(text: &[u8]) -> Option<Bytes> {
    let text = std::str::from_utf8(text).ok()?;
    let begins = text.trim_start_matches(|letter: char| letter.is_whitespace() || letter == '\u{feff}');
    (!begins.starts_with(['{', '['])).then(|| mcp::quote(text).into())
}

/// Whether it is a JSON object that nobody can take for a message. SECURITY: there are clients that look at no event's type,
/// and ones that read names of members in any case: an answer or a notification must not reach them beside the line.
fn says_nothing(text: &[u8]) -> bool {
    let names = ["jsonrpc", "method", "result", "error"];
    let is_one = |name: &String| !name.is_ascii() || names.iter().any(|one| name.eq_ignore_ascii_case(one));
    serde_json::from_slice::<serde_json::Map<_, _>>(text).is_ok_and(|members| !members.keys().any(is_one))
}

/// The text again.
fn unquoted(string: &[u8]) -> Option<Bytes> {
    serde_json::from_slice::<String>(string).ok().map(Bytes::from)
}

const NO_ANSWER: &str = "the server gave no answer";

/// Whoever asked is told that there is no answer.
fn no_answer(why: &'static str, detail: String) -> Stop {
    Stop::failed(Stage::Forward, "upstream-protocol", error::UPSTREAM_DOWN, why).detail(detail)
}

fn not_mcp(what: &str) -> Stop {
    Stop::withheld("upstream-protocol", error::UPSTREAM_DOWN, "the server's answer is not MCP").detail(what.to_owned())
}
