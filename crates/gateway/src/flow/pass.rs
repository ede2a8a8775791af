//! One event of a stream, judged: whose it is, who may hear it, and what of it.

use super::{Flow, Passed};
use crate::{
    ask::{Ask, Verdict, shown_as},
    call::Route,
    catalog::{self, Changes},
    forward::Exchange,
    own,
    pipeline::Line,
    release,
    server::Server,
    stop::Stop,
    trail::Trail,
    upstream,
};
use audit::SystemRecord;
use bytes::Bytes;
use mcp::{Era, Kind, Message, sse::Event};
use std::{borrow::Cow, sync::Arc};
use vocab::{Action, ServerName};

impl Flow {
    /// One event, judged and passed on. `None` if it is not for the client.
    pub(super) async fn pass(
        &mut self,
        line: &Line,
        trail: &mut Trail,
        from: Option<ServerName>,
        event: Event,
    ) -> Result<Option<Bytes>, Stop> {
        self.passed = Passed::Comment;
        if !self.has_share(line, from.as_ref()) {
            return Ok(None);
        }
        let is_servers = self.reader().is_none();
        self.resumable |= is_servers && event.id.is_some() && self.exchange.call.era == Era::Legacy;
        let event = if is_servers { self.addressed(masked_beside(line, trail, event)) } else { event };
        let Some(data) = event.message() else { return Ok(aside(line, trail, event)) };
        self.passed = Passed::Message;
        let message =
            upstream::exchange::one(data.clone(), &line.snapshot.answer_limits()).map_err(|fault| self.stop(&fault))?;
        match message.kind() {
            Kind::Request if self.reads_again() => self.question_again(line, from.as_ref(), &event, &message),
            Kind::Request => Box::pin(self.question(line, trail, from.as_ref(), &event, &message)).await,
            // SECURITY: nobody asked these servers anything on their common stream. What looks like an answer here could
            // be passed off as that of another server.
            Kind::Response if self.exchange.target.one().is_none() && !self.is_own_word(from.as_ref()) => Ok(None),
            // One answer is all there is to a request; another would be one that the record does not know of.
            Kind::Response if self.exchange.answered && !self.is_replay() => Ok(None),
            Kind::Response if !release::answers(&self.exchange, &message) && !self.is_replay() => {
                Err(Stop::withheld("answer-id", mcp::error::INTERNAL, "the server answered another request"))
            }
            Kind::Response | Kind::Notification => {
                let is_ours = self.is_own_word(from.as_ref());
                if let Some(server) = self.server(line, from.as_ref()).filter(|_| !is_ours) {
                    catalog::notice(line, &server, &message);
                    if !self.concerns(line, &server, &message) || self.holds_back(line, &server, &message) {
                        return Ok(None);
                    }
                    match line.judge_asked(&server, &self.exchange, &message) {
                        // What must not be said of a task is not said; its answer says so when it is asked for.
                        Err(_) if message.kind() == Kind::Notification => return Ok(None),
                        judged => judged?,
                    }
                }
                // The gateway's own words hold nothing of servers; ids that it sealed look like secrets.
                let (text, said) = if is_ours {
                    (message.bytes().clone(), release::Said::of(&message))
                } else {
                    line.release_message(&message, &self.exchange, &mut self.carry)?
                };
                let Some(text) = self.renamed(from.as_ref(), &message, text)? else { return Ok(None) };
                // What was said on the stream of a call names tasks and addresses as its client knows them.
                let text = match self.server(line, from.as_ref()).filter(|_| !self.reads_call()) {
                    Some(server) => match line.as_shown(text, &message, &self.exchange, &server) {
                        // Of a task whose id is too long to be sealed its client knows nothing.
                        Err(_) if message.kind() == Kind::Notification => return Ok(None),
                        shown => shown?,
                    },
                    None => text,
                };
                said.note(trail.facts_mut());
                if let Some(watch) = &mut self.watch
                    && message.method() == "notifications/subscriptions/acknowledged"
                {
                    watch.acknowledged(&message);
                }
                if message.kind() == Kind::Response {
                    self.exchange.answered = true;
                    self.passed = Passed::Answer;
                    // What is given again was committed to by the call that it answers.
                    if !self.is_replay() {
                        trail.committed(&said);
                    }
                }
                Ok(Some(rewritten(&event, &message, &text)))
            }
        }
    }

    /// The same. What one of several servers says and cannot be read, or must not pass, costs that message: the others go on.
    pub(super) async fn pass_or_leave_out(
        &mut self,
        line: &Line,
        trail: &mut Trail,
        from: Option<ServerName>,
        event: Event,
    ) -> Result<Option<Bytes>, Stop> {
        let one_of_many = from.clone().filter(|_| self.exchange.target.one().is_none());
        let passed = self.pass(line, trail, from, event).await;
        match (passed, one_of_many) {
            (Err(stop), Some(server)) => {
                let why = stop.detail.as_deref().unwrap_or(&stop.message);
                // The first is said aloud and is on record: a server may go on so for hours.
                if std::mem::replace(&mut self.has_left_out, true) {
                    tracing::debug!(%server, why, "a message is left out of a stream of several servers");
                } else {
                    tracing::warn!(%server, why, "messages are left out of a stream of several servers");
                    let journal = &line.state.journal;
                    journal.event(SystemRecord {
                        call: Some(trail.facts().call),
                        detail: Some(format!("server `{server}`: {why}")),
                        ..journal.system_record(Cow::Borrowed("left-out"))
                    });
                }
                Ok(None)
            }
            (passed, _) => passed,
        }
    }

    /// Whether the gateway itself said it: on a merged stream, or on one that it keeps, where servers are named.
    fn is_own_word(&self, from: Option<&ServerName>) -> bool {
        let is_kept = self.reader().is_some() && !self.reads_call();
        from.is_none() && (is_kept || self.exchange.target.one().is_none())
    }

    /// In the aggregate an event's id says whose it is, so that whoever asks for the rest finds that server.
    fn addressed(&self, event: Event) -> Event {
        match self.exchange.target.one() {
            Some(one) if event.id.is_some() && self.exchange.call.route == Route::All => {
                mcp::sse::prefix_id(&event, &format!("{}/", one.server.name))
            }
            Some(_) | None => event,
        }
    }

    /// Whether the caller may still hear of the server that speaks on a merged stream.
    fn has_share(&self, line: &Line, from: Option<&ServerName>) -> bool {
        let (None, Some(name)) = (self.exchange.target.one(), from) else { return true };
        let subject = &self.exchange.caller.subject;
        let server = line.snapshot.servers.get(name);
        server.is_some_and(|server| line.snapshot.policies.reaches(subject, server.root()))
    }

    /// Whether a server tells progress of what it was asked. SECURITY: to the client of the aggregate tokens are those of all
    /// servers, and one could speak of the call of another.
    fn is_told_of_own(&self, server: &Server, message: &Message) -> bool {
        let Exchange { call, target, .. } = &*self.exchange;
        let Some(token) = message.param(&["progressToken"]).filter(|_| call.route == Route::All) else { return true };
        let token = String::from_utf8_lossy(token.raw);
        let own = call.message().and_then(Message::progress_token).filter(|_| target.one().is_some());
        if own.is_some_and(|own| mcp::id_key(own) == mcp::id_key(&token)) {
            return true;
        }
        // What was asked before, and goes on as a task, has the token still.
        target.session().is_some_and(|session| !session.is_token_of_another(&server.name, &token))
    }

    /// Whether the caller may hear of it: news of a resource that it cannot see or may not follow, or of a task that it
    /// did not begin or whose tool it may not call any more, are none of its business.
    fn concerns(&mut self, line: &Line, server: &Server, message: &Message) -> bool {
        match message.method() {
            "notifications/resources/updated" => {}
            "notifications/progress" => return self.is_told_of_own(server, message),
            "notifications/tasks/status" | "notifications/tasks" => {
                // On the stream of a call they name it as its client knows it.
                let is_shown = self.reads_call() && self.exchange.call.route == Route::All;
                return line.hears_of_task(&self.exchange, server, message, is_shown);
            }
            _ => return true,
        }
        let Some(said) = message.param(&["uri"]) else { return false };
        let uri = match said.text() {
            // On the stream of a call it stands as its client knows it.
            Some(shown) if self.reads_call() && self.exchange.call.route == Route::All => {
                let own = mcp::address::split(&shown).filter(|(of, _)| *of == server.name.as_str());
                own.map(|(_, uri)| uri.into_owned())
            }
            own => own.map(Cow::into_owned),
        };
        let Some(uri) = uri else { return false };
        let subject = &self.exchange.caller.subject;
        line.snapshot.policies.visible(subject, Action::ResourceRead, &server.resource(&uri))
            && self.may_follow(line, server, &uri)
    }

    /// Whether a listener hears of changed lists from the gateway, and not in the server's words.
    fn holds_back(&mut self, line: &Line, server: &Server, message: &Message) -> bool {
        let changes = Changes::told(message.method());
        let subject = &self.exchange.caller.subject;
        changes.any() && self.watch.as_mut().is_some_and(|watch| watch.hear(line, subject, server, changes))
    }

    /// A server that takes back a question names it by its own id, and the client may know another. From here on its answer
    /// is for nobody. `None` if in the aggregate this server has no such question: what it names belongs to somebody else.
    pub(super) fn renamed(
        &self,
        from: Option<&ServerName>,
        message: &Message,
        text: Bytes,
    ) -> Result<Option<Bytes>, Stop> {
        // What was said before was named anew then.
        if self.reads_call() || message.method() != "notifications/cancelled" {
            return Ok(Some(text));
        }
        let server = from.or_else(|| self.exchange.target.one().map(|one| &one.server.name));
        let session = self.exchange.target.session().or(self.exchange.opened.as_ref());
        let again = upstream::exchange::one(text, &mcp::Limits::default()).map_err(|fault| self.stop(&fault))?;
        let shown = again.param(&["requestId"]).zip(server.zip(session)).and_then(|(id, (server, session))| {
            let shown = session.withdraw(server, self.origin(), &String::from_utf8_lossy(id.raw))?;
            Some((id.span, shown.into_bytes()))
        });
        Ok(match (shown, &self.exchange.call.route) {
            (Some(edit), _) => Some(mcp::splice(again.bytes(), &mut [edit])),
            (None, Route::One(_)) => Some(again.bytes().clone()),
            (None, Route::All) => None,
        })
    }

    /// A GET stream may replay responses of earlier requests (resumption).
    fn is_replay(&self) -> bool {
        self.exchange.call.message().is_none()
    }

    /// A question of the server is a call of its own.
    async fn question(
        &self,
        line: &Line,
        trail: &Trail,
        from: Option<&ServerName>,
        event: &Event,
        message: &Message,
    ) -> Result<Option<Bytes>, Stop> {
        let Some(server) = self.server(line, from) else { return Ok(None) };
        // A server that is not configured any more has nothing to ask, and waits for the answer.
        if !line.snapshot.servers.contains_key(&server.name) {
            return Err(own::withdrawn());
        }
        let (origin, parent) = (self.origin(), trail.facts().call);
        let ask = Ask { exchange: &self.exchange, server: &server, origin, parent, message };
        match line.ask(ask).await {
            Verdict::Passed(text) => {
                let text = line.as_shown(text, message, &self.exchange, &server)?;
                Ok(Some(rewritten(event, message, &text)))
            }
            Verdict::Declined => Ok(None),
        }
    }

    /// A question that was put to the client before. It is put again, by the same id, where it still waits for an answer
    /// and may still be asked.
    fn question_again(
        &self,
        line: &Line,
        from: Option<&ServerName>,
        event: &Event,
        message: &Message,
    ) -> Result<Option<Bytes>, Stop> {
        let Some(server) = self.server(line, from) else { return Ok(None) };
        let Some((session, id)) = self.exchange.target.session().zip(message.id()) else { return Ok(None) };
        // On the stream of a call it was kept with the id that its client knows, on one that listens with the server's.
        let is_of_call = self.reads_call();
        let shown = if is_of_call {
            session.is_asked_by(&server.name, id).then(|| id.to_owned())
        } else {
            session.shown_question(&server.name, self.origin(), id)
        };
        let Some(shown) = shown else { return Ok(None) };
        // What must not pass now is left out, and the rest goes on.
        let Ok((text, said)) = line.release_question(message) else { return Ok(None) };
        if !line.may_ask(&self.exchange.caller, &server, message, &said.findings)? {
            return Ok(None);
        }
        if is_of_call {
            return Ok(Some(rewritten(event, message, &text)));
        }
        let text = upstream::exchange::one(text, &line.snapshot.answer_limits()).map_err(|fault| self.stop(&fault))?;
        let text = shown_as(&text, &shown, &self.exchange.call.route);
        let text = line.as_shown(text, message, &self.exchange, &server)?;
        Ok(Some(rewritten(event, message, &text)))
    }

    /// The server that speaks, as it is configured now. One that is not any more ends what it began.
    fn server(&self, line: &Line, from: Option<&ServerName>) -> Option<Arc<Server>> {
        let one = self.exchange.target.one();
        let name = from.or_else(|| one.map(|one| &one.server.name))?;
        let began = one.filter(|one| one.server.name == *name && !self.listens()).map(|one| &one.server);
        line.snapshot.servers.get(name).or(began).map(Arc::clone)
    }
}

/// The event without secrets in its id, its type, its comments.
fn masked_beside(line: &Line, trail: &mut Trail, event: Event) -> Event {
    if !event.has_beside() {
        return event;
    }
    let findings = &mut trail.facts_mut().findings;
    mcp::sse::replace_beside(&event, |text| line.release_beside(text, findings)).unwrap_or(event)
}

/// What is no message to clients: a comment, an id, an event of a type that they do not hear. `None` if it must not
/// pass.
fn aside(line: &Line, trail: &mut Trail, event: Event) -> Option<Bytes> {
    let Some(data) = &event.data else { return Some(event.raw) };
    let (may_pass, findings) = line.release_aside(data);
    trail.facts_mut().findings.extend(findings);
    may_pass.then_some(event.raw)
}

/// The event with another message in it, or as it came if nothing changed.
fn rewritten(event: &Event, message: &Message, text: &Bytes) -> Bytes {
    if text == message.bytes() { event.raw.clone() } else { mcp::sse::replace_data(event, text) }
}
