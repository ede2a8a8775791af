//! What is asked in the client's place: a gateway that forgot its session gets to know it again, and lists of tools are read
//! when a call is refused for want of its headers. Of the answers the client hears no more than that its lists may have
//! changed.

use super::{
    bridge::{Bridge, LIMITS},
    carry::{PATIENCE, PROMPT, is_event_stream},
    credential::Behalf,
    failure::Failure,
    mirror::{question, single},
    post::Post,
};
use bytes::Bytes;
use egress::Body;
use http::{HeaderMap, Method, Response};
use mcp::{
    Kind, Message,
    header::SESSION_ID,
    sse::{Decoder, Event},
};
use std::{borrow::Cow, time::Duration};
use tokio::time::timeout;

/// Pages of the list of tools that are asked for at once.
const PAGES: usize = 256;

impl Bridge {
    /// Asks for the list of tools in the client's place, since a call was refused with these headers. Whether it has others
    /// now.
    pub(super) async fn learns(&self, post: &Post, refused: &HeaderMap) -> bool {
        let Some(call) = &post.message else { return false };
        let _turn = self.mirror.learning.lock().await;
        // Somebody may have learned meanwhile.
        let mut cursor = None;
        for _ in 0..PAGES {
            if self.dress(post) != *refused {
                return true;
            }
            let page = match self.page_of_tools(call, cursor.as_deref()).await {
                Ok(page) => page,
                Err(failure) => {
                    tracing::debug!("the tools are not known: {}", failure.text());
                    return false;
                }
            };
            self.mirror.learn(&page);
            cursor = page.outcome_member(&["nextCursor"]).and_then(|cursor| cursor.text()).map(Cow::into_owned);
            if cursor.is_none() {
                break;
            }
        }
        self.dress(post) != *refused
    }

    async fn page_of_tools(&self, call: &Message, cursor: Option<&str>) -> Result<Message, Failure> {
        let question = question(call, cursor).ok_or_else(|| Failure::Unfit("no list can be asked for".to_owned()))?;
        let question = Post::of(question, None);
        let sent = self
            .send(Method::POST, || self.dress(&question), &question.text, PROMPT, Duration::ZERO, Behalf::Client)
            .await;
        self.response(sent.map_err(|fault| self.lost(&fault))?, "tools/list").await
    }

    /// The response that is all that is wanted of an answer.
    async fn response(&self, response: Response<Body>, method: &str) -> Result<Message, Failure> {
        if !response.status().is_success() {
            return Err(self.unfit(response).await);
        }
        let is_stream = is_event_stream(response.headers());
        let whole = timeout(PROMPT, self.whole(response.into_body())).await;
        let text = whole.map_err(|_| Failure::Late(format!("{} does not end its answer", self.tell.gateway)))??;
        let answer = response_in(text, is_stream);
        let answer = answer.ok_or_else(|| Failure::Unfit(format!("the gateway did not answer `{method}`")))?;
        match answer.error() {
            Some(error) => Err(Failure::Theirs(Bytes::copy_from_slice(error))),
            None => Ok(answer),
        }
    }

    /// Introduces the client again as it introduced itself, unless somebody did since session `lost`.
    pub(super) async fn introduce_again(&self, lost: u64, behalf: Behalf) -> Result<(), Failure> {
        let _turn = self.session.introducing.lock().await;
        if self.session.number() != Some(lost) {
            return Ok(());
        }
        let Some(past) = self.session.past() else { return Ok(()) };
        // The session in which it was asked is over, whatever comes.
        self.take_back(self.questions.withdraw_all()).await;
        let hello = Post::of(past.hello.clone(), None);
        let sent = self.send(Method::POST, || self.dress(&hello), &hello.text, PROMPT, PATIENCE, behalf).await;
        let response = sent.map_err(|fault| self.lost(&fault))?;
        let handle = response.headers().get(SESSION_ID).cloned();
        let answer = self.response(response, "initialize").await?;
        self.session.begin_again(&answer, handle).map_err(|fault| Failure::Unfit(fault.to_string()))?;
        tracing::info!("the gateway did not know the session any more; the client was introduced again");
        let is_ready = past.ready.is_some();
        let changed = if is_ready { past.changed } else { Vec::new() };
        let texts = past.ready.into_iter().chain(past.level).chain(past.subscriptions.into_values());
        let said = self.say_again(texts, behalf).await;
        if is_ready && said.is_ok() {
            self.session.is_ready();
        }
        // Whatever became of that: it is another session, and what the old one had to say is lost.
        for text in changed {
            self.voice.say(text).await;
        }
        said
    }

    /// Says in a new session what the client said in the old one.
    async fn say_again(&self, texts: impl Iterator<Item = Bytes>, behalf: Behalf) -> Result<(), Failure> {
        for text in texts {
            let sent = self.send(Method::POST, || self.session.headers(), &text, PROMPT, Duration::ZERO, behalf).await;
            let response = sent.map_err(|fault| self.lost(&fault))?;
            self.read_out(response.into_body()).await;
        }
        Ok(())
    }
}

/// The response in a body: the body itself, or the event of a stream that is one.
fn response_in(text: Bytes, is_stream: bool) -> Option<Message> {
    let is_response = |message: &Message| message.kind() == Kind::Response;
    if !is_stream {
        return single(&text, &LIMITS).filter(is_response);
    }
    let mut events = Vec::new();
    Decoder::new(LIMITS.body).push(text, &mut events).ok()?;
    events.iter().filter_map(Event::message).filter_map(|message| single(message, &LIMITS)).find(is_response)
}
