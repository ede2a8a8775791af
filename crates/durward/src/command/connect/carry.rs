//! What leaves for the gateway, and what comes back.
//!
//! The only place that sends. Repeats a request only where it is certain that the gateway did not take it: no connection
//! came about, the credential was refused and there is a new one, the session was unknown, or headers were missing.

use super::{
    bridge::{Bridge, LIMITS},
    credential::Behalf,
    errand::Errand,
    failure::{Failure, message_of},
    mirror::single,
    post::{Acknowledged, Post},
    stream::{ANSWER, Cursor, Pause, STALLED, Stream},
    tell::chain,
};
use bytes::{Bytes, BytesMut};
use egress::{Body, EgressFault};
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, USER_AGENT},
};
use http_body_util::{BodyExt, Full};
use mcp::{Era, Kind, Message, error::HEADER_MISMATCH, header::SESSION_ID};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep, timeout};

/// How long the gateway may take where nobody has to think: handshakes, notifications, streams.
pub(super) const PROMPT: Duration = Duration::from_secs(30);
/// How long a gateway that does not listen is waited for: it may be starting.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// How long the end of a stream is waited for after the answer, so that its connection can be used again.
const DRAIN: Duration = Duration::from_millis(100);
/// How often a stream that was cut before the answer, or before the acknowledgement, is taken up again in a row.
const RESUMES: u32 = 5;
/// What of an answer that is none is shown, in characters.
const SHOWN: usize = 200;

impl Bridge {
    /// Carries requests until each is answered, by the gateway or by us.
    pub(super) async fn carry(&self, post: &Post) {
        for errand in post.errands() {
            errand.sent();
        }
        let mut pause = Pause::default();
        let mut cuts = 0;
        let failure = loop {
            let begun = Instant::now();
            match self.exchange(post).await {
                Ok(()) => return,
                // Nothing is lost by listening again but what was said in between.
                Err(Failure::Lost { what, may_have_happened })
                    if post.goes_on() || may_have_happened && post.listens() && cuts < RESUMES =>
                {
                    tracing::debug!(what, "subscriptions are made again");
                    cuts += 1;
                    pause.after(begun).await;
                }
                Err(failure) => break failure,
            }
        };
        // SPEC: the first word of a stream is the acknowledgement. Without one the client hears why there is none.
        if let Some(result) = post.ended().filter(|_| post.was_open())
            && self.deliver(&result, None, Some(post)).await.is_ok()
        {
            tracing::debug!("subscriptions are not made again: {}", failure.text());
        }
        for errand in post.errands() {
            // First: what was asked in its course nobody can be told any more.
            self.take_back(self.questions.withdraw_of(errand)).await;
            if let Some(errand) = self.errands.give_up(errand) {
                self.voice.say(failure.answer(errand.id())).await;
            }
        }
    }

    /// Sends something that nobody waits for: a notification, or the answer to a question.
    pub(super) async fn notify(&self, message: Message) {
        let method = message.method().to_owned();
        let number = self.session.number();
        let post = Post::of(message, None);
        let failure =
            match self.send(Method::POST, || self.dress(&post), &post.text, PROMPT, PATIENCE, Behalf::Client).await {
                Ok(response) if response.status().is_success() => {
                    self.read_out(response.into_body()).await;
                    if method == "notifications/initialized" {
                        self.session.is_ready();
                    }
                    return;
                }
                // A new session is told itself that the client is there, and knows nothing of what was asked in the old one.
                Ok(response) => match (response.status(), number) {
                    (StatusCode::NOT_FOUND, Some(lost)) => match self.introduce_again(lost, Behalf::Client).await {
                        Ok(()) => return,
                        Err(failure) => failure,
                    },
                    _ => self.unfit(response).await,
                },
                Err(fault) => self.lost(&fault),
            };
        tracing::warn!(method, "not delivered: {}", failure.text());
    }

    async fn exchange(&self, post: &Post) -> Result<(), Failure> {
        let mut is_again = false;
        let mut may_learn = self.is_modern(post) && post.is("tools/call");
        loop {
            let dressed = may_learn.then(|| self.dress(post));
            let lost = self.session.number().filter(|_| !is_again && !post.is("initialize") && !self.is_modern(post));
            let patience = if post.goes_on() { Duration::ZERO } else { PATIENCE };
            let deadline = if post.is("initialize") { PROMPT } else { ANSWER };
            let sent =
                self.send(Method::POST, || self.dress(post), &post.text, deadline, patience, Behalf::Client).await;
            let response = sent.map_err(|fault| self.lost(&fault))?;
            if let (StatusCode::NOT_FOUND, Some(lost)) = (response.status(), lost) {
                // The gateway did not take it: it does not know the session.
                self.introduce_again(lost, Behalf::Client).await?;
                is_again = true;
                continue;
            }
            let (status @ StatusCode::BAD_REQUEST, Some(dressed)) = (response.status(), dressed) else {
                return self.read(post, response).await;
            };
            // SPEC: a call whose headers do not say what its arguments do is not taken.
            let text = self.whole(response.into_body()).await?;
            let code = single(&text, &LIMITS).as_ref().and_then(Message::error_code);
            if code != Some(HEADER_MISMATCH) || !self.learns(post, &dressed).await {
                return self.read_text(post, status, &text, None).await;
            }
            may_learn = false;
        }
    }

    /// Reads the answer to a POST.
    async fn read(&self, post: &Post, response: Response<Body>) -> Result<(), Failure> {
        let status = response.status();
        let handle = response.headers().get(SESSION_ID).cloned();
        if status.is_success() && is_event_stream(response.headers()) {
            return self.read_stream(post, response.into_body(), handle.as_ref()).await;
        }
        let text = self.whole(response.into_body()).await?;
        self.read_text(post, status, &text, handle.as_ref()).await
    }

    async fn read_text(
        &self,
        post: &Post,
        status: StatusCode,
        text: &Bytes,
        handle: Option<&HeaderValue>,
    ) -> Result<(), Failure> {
        let refuses = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        if refuses {
            self.tell.refused(status, &why(text, status));
        }
        if post.ended().is_some() {
            return Err(self.not_heard_again(status, text));
        }
        let read = self.deliver(text, handle, Some(post)).await;
        let waits = !post.errands().is_empty();
        // Where nobody waits, success is all that is due: 202, as a rule, and no word.
        if status.is_success() && !waits {
            return Ok(());
        }
        // Where it answers one who waits, it passes as it is, whatever the status.
        if read.is_ok() && post.is_answered() && waits {
            self.tell.answered(status);
            return Ok(());
        }
        let failure = self.not_an_answer(status, text);
        if !waits {
            tracing::warn!("a batch is not delivered: {}", failure.text());
        } else if let Failure::Unfit(what) = &failure
            && !refuses
            // Whoever speaks MCP may be a gateway, whatever it speaks of.
            && read.is_err()
        {
            self.tell.unfit(status, what);
        }
        Err(failure)
    }

    /// Reads a stream until everybody is answered.
    async fn read_stream(&self, post: &Post, body: Body, handle: Option<&HeaderValue>) -> Result<(), Failure> {
        let open = if post.listens() { Stream::unasked } else { Stream::of_call };
        let mut stream = open(body);
        let mut cursor = Cursor::default();
        let mut resumes = 0;
        loop {
            let cut = loop {
                let event = tokio::select! {
                    event = stream.next() => event,
                    // Its answer came another way.
                    () = answered(post.errands()), if !post.errands().is_empty() => break None,
                };
                let event = match event {
                    Ok(Some(event)) => event,
                    Ok(None) => break Some("the gateway ended the stream before it answered".to_owned()),
                    Err(cause) => break Some(format!("the connection to the gateway was lost ({cause})")),
                };
                resumes = 0;
                cursor.note(&event);
                let Some(message) = event.message() else { continue };
                if post.is_to_listen_again(message) {
                    break Some("the gateway wants to be asked again".to_owned());
                }
                self.hear(post, message, handle).await;
                if post.is_answered() && !post.errands().is_empty() {
                    break None;
                }
            };
            let Some(what) = cut else {
                self.tell.answered(StatusCode::OK);
                // Whether it ends or not, nobody waits for it.
                let _ = timeout(DRAIN, stream.next()).await;
                return Ok(());
            };
            let lost = Failure::Lost { what: format!("{}: {what}", self.tell.gateway), may_have_happened: true };
            if self.is_modern(post) || cursor.last.is_none() || resumes >= RESUMES {
                return Err(lost);
            }
            resumes += 1;
            sleep(cursor.wait()).await;
            match self.listen(&cursor, Behalf::Client).await {
                Ok(response) if response.status().is_success() && is_event_stream(response.headers()) => {
                    stream = open(response.into_body());
                }
                Ok(_) | Err(_) => return Err(lost),
            }
        }
    }

    /// Takes a message of a stream.
    async fn hear(&self, post: &Post, message: &Bytes, handle: Option<&HeaderValue>) {
        let (is_known, changed) = match post.acknowledged(message) {
            Acknowledged::No | Acknowledged::First => (false, Vec::new()),
            Acknowledged::Again { is_known, changed } => (is_known, changed),
        };
        if !is_known && let Err(fault) = self.deliver(message, handle, Some(post)).await {
            tracing::warn!(%fault, "the gateway sent an event that is no message");
        }
        for text in changed {
            self.voice.say(text).await;
        }
    }

    /// Asks for the stream of what is said unasked, or for the rest of another.
    pub(super) async fn listen(&self, cursor: &Cursor, behalf: Behalf) -> Result<Response<Body>, EgressFault> {
        let headers = || {
            let mut headers = self.session.headers();
            if let Some(last) = cursor.last.as_ref().and_then(|last| HeaderValue::from_bytes(last).ok()) {
                headers.insert("last-event-id", last);
            }
            headers
        };
        self.send(Method::GET, headers, &Bytes::new(), PROMPT, Duration::ZERO, behalf).await
    }

    /// Ends the session.
    pub(super) async fn leave(&self, deadline: Duration) {
        if self.session.number().is_some() {
            let left = self
                .send(Method::DELETE, || self.session.headers(), &Bytes::new(), deadline, Duration::ZERO, Behalf::Ours)
                .await;
            // A gateway that does not hear it ends an idle session itself.
            if let Err(fault) = left {
                tracing::debug!(%fault, "the session was left without a word");
            }
        }
    }

    /// Tells the client that nobody waits for what it was asked.
    pub(super) async fn take_back(&self, withdrawn: Vec<Bytes>) {
        for text in withdrawn {
            self.voice.say(text).await;
        }
    }

    /// Passes on what the gateway says, byte for byte; in the course of `post`, unless it is said unasked.
    pub(super) async fn deliver(
        &self,
        text: &Bytes,
        handle: Option<&HeaderValue>,
        post: Option<&Post>,
    ) -> Result<(), mcp::ScanFault> {
        let messages = match mcp::scan(text.clone(), &LIMITS)? {
            mcp::Body::Single(message) => vec![message],
            mcp::Body::Batch(messages) => messages,
        };
        let mut is_wanted = false;
        // Each is looked at: those who wait are answered by that.
        for message in &messages {
            self.questions.hear(message, post.and_then(|post| post.errands().first()));
            is_wanted |= self.is_wanted(message, handle);
        }
        if is_wanted {
            self.voice.say(text.clone()).await;
        }
        Ok(())
    }

    /// Whether the client is to hear it: an answer must be the first to its request.
    fn is_wanted(&self, message: &Message, handle: Option<&HeaderValue>) -> bool {
        if message.kind() != Kind::Response {
            return true;
        }
        let Some(errand) = self.errands.answered_by(message) else { return false };
        match errand.message.method() {
            "initialize" => self.session.begin(&errand.message, message, handle.cloned()),
            "tools/list" => self.mirror.learn(message),
            _ if !message.is_failure() => self.session.remember(&errand.message),
            _ => {}
        }
        true
    }

    pub(super) fn dress(&self, post: &Post) -> HeaderMap {
        match &post.message {
            Some(message) if self.is_modern(post) => {
                let mut headers = HeaderMap::new();
                self.mirror.dress(&mut headers, message);
                headers
            }
            Some(message) if message.method() == "initialize" => HeaderMap::new(),
            Some(_) | None => self.session.headers(),
        }
    }

    /// Which era a message belongs to. A modern notification may come without its version.
    fn is_modern(&self, post: &Post) -> bool {
        let Some(message) = &post.message else { return false };
        message.era() == Era::Modern || (message.kind() == Kind::Notification && !self.session.is_begun())
    }

    /// Sends, and sends again where the gateway certainly did not take it.
    pub(super) async fn send(
        &self,
        method: Method,
        headers: impl Fn() -> HeaderMap,
        text: &Bytes,
        deadline: Duration,
        patience: Duration,
        behalf: Behalf,
    ) -> Result<Response<Body>, EgressFault> {
        let until = Instant::now() + patience;
        let mut wait = Duration::from_millis(100);
        let mut is_renewed = false;
        loop {
            let credential = self.credential.header();
            let mut request = Request::new(Full::new(text.clone()));
            *request.method_mut() = method.clone();
            *request.uri_mut() = self.endpoint.uri().clone();
            *request.headers_mut() = headers();
            usual(request.headers_mut(), &method);
            if let Some(credential) = &credential {
                request.headers_mut().insert(AUTHORIZATION, credential.clone());
            }
            match self.egress.send(&self.endpoint, 0, Box::new(request), deadline).await {
                Ok(response) => {
                    let is_refused = response.status() == StatusCode::UNAUTHORIZED;
                    if is_refused && !is_renewed && self.credential.renew(credential.as_ref(), behalf).await {
                        is_renewed = true;
                        continue;
                    }
                    self.tell.reached(response.status());
                    return Ok(*response);
                }
                Err(fault) => {
                    // A stream that nobody waits for, and a farewell, may go unanswered.
                    if !fault.may_have_arrived() || method == Method::POST {
                        self.tell.down(&fault);
                    }
                    if !may_come(&fault) || Instant::now() + wait > until {
                        return Err(fault);
                    }
                    sleep(wait).await;
                    wait = (wait * 2).min(Duration::from_secs(1));
                }
            }
        }
    }

    /// Reads a body to its end.
    pub(super) async fn whole(&self, mut body: Body) -> Result<Bytes, Failure> {
        let mut text = BytesMut::new();
        let lost =
            |what: String| Failure::Lost { what: format!("{}: {what}", self.tell.gateway), may_have_happened: true };
        loop {
            let frame = timeout(STALLED, body.frame()).await;
            match frame.map_err(|_| Failure::Late(format!("{} does not end its answer", self.tell.gateway)))? {
                None => return Ok(text.freeze()),
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else { continue };
                    if text.len() + data.len() > LIMITS.body {
                        let limit = LIMITS.body;
                        return Err(lost(format!("the answer is longer than {limit} bytes")));
                    }
                    text.extend_from_slice(&data);
                }
                Some(Err(cause)) => return Err(lost(format!("the answer breaks off ({cause})"))),
            }
        }
    }

    /// Reads a body that says nothing, so that its connection can be used again.
    pub(super) async fn read_out(&self, body: Body) {
        match timeout(PROMPT, self.whole(body)).await {
            Ok(Ok(_)) => {}
            Ok(Err(failure)) => tracing::debug!("{}", failure.text()),
            Err(_) => tracing::debug!("an answer that nobody waits for does not end"),
        }
    }

    pub(super) fn lost(&self, fault: &EgressFault) -> Failure {
        if fault.may_have_arrived() && fault.is_timeout() {
            return Failure::Late(format!("{} gave no answer: {}", self.tell.gateway, chain(fault)));
        }
        Failure::Lost { what: self.tell.unreachable(fault), may_have_happened: fault.may_have_arrived() }
    }

    /// What a refusal says.
    pub(super) async fn unfit(&self, response: Response<Body>) -> Failure {
        let status = response.status();
        let text = match self.whole(response.into_body()).await {
            Ok(text) => text,
            Err(failure) => return failure,
        };
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            self.tell.refused(status, &why(&text, status));
        }
        self.not_an_answer(status, &text)
    }

    /// Why a stream that is asked for again does not begin. A gateway that starts has nothing to say yet.
    fn not_heard_again(&self, status: StatusCode, text: &Bytes) -> Failure {
        if !(status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS) {
            return self.not_an_answer(status, text);
        }
        Failure::Lost { what: format!("{} answers {status}", self.tell.gateway), may_have_happened: false }
    }

    fn not_an_answer(&self, status: StatusCode, text: &Bytes) -> Failure {
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Failure::Unfit(self.tell.refusal(status, &why(text, status)));
        }
        match single(text, &LIMITS).as_ref().and_then(Message::error) {
            Some(error) => Failure::Theirs(Bytes::copy_from_slice(error)),
            None => Failure::Unfit(format!("{} answered {status}: {}", self.tell.gateway, why(text, status))),
        }
    }
}

/// Waits until each of them is answered.
async fn answered(errands: &[Arc<Errand>]) {
    for errand in errands {
        errand.answered().await;
    }
}

/// Whether a gateway that does not answer may be about to.
const fn may_come(fault: &EgressFault) -> bool {
    matches!(fault, EgressFault::Connect { .. } | EgressFault::Socket { .. } | EgressFault::Unsent { .. })
}

fn usual(headers: &mut HeaderMap, method: &Method) {
    let accepted = if method == Method::GET { "text/event-stream" } else { "application/json, text/event-stream" };
    headers.insert(ACCEPT, HeaderValue::from_static(accepted));
    if method == Method::POST {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("durward-connect/", env!("CARGO_PKG_VERSION"))));
}

pub(super) fn is_event_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("text/event-stream"))
}

/// What a refusal says for people.
fn why(text: &Bytes, status: StatusCode) -> String {
    let said = single(text, &LIMITS).as_ref().and_then(Message::error).and_then(message_of);
    let said = said.unwrap_or_else(|| String::from_utf8_lossy(text).chars().take(SHOWN).collect());
    let said: String = said.trim().chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    if said.is_empty() { status.canonical_reason().unwrap_or("nothing more").to_owned() } else { said }
}
