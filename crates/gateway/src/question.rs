//! The question that a client's answer is for, while that answer is decided.
//!
//! Nobody else can answer it meanwhile. Where the answer could not be decided (a limit, a fault) the question waits on;
//! where it was refused for good, the server is told no, so that it waits for nothing.

use crate::{
    call::Route,
    origin::Origin,
    pipeline::Line,
    promise::promised,
    server::Server,
    session::{Asked, Leg, Session},
    stop::Stop,
    upstream::{
        UpstreamFault,
        exchange::{self, Hop},
        pipe::Pipe,
    },
};
use mcp::{Message, error};
use policy::Permit;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use vocab::{Digest, ServerName};

/// A question, taken for one answer.
pub(crate) struct Taken {
    line: Line,
    session: Arc<Session>,
    server: ServerName,
    /// The id under which the server asked, as it wrote it.
    pub(crate) id: Box<str>,
    /// The digest of what was asked: what the permit for it is bound to.
    pub(crate) digest: Digest,
    method: Box<str>,
    /// Its progress tokens, as client and server know them.
    tokens: Option<(Box<str>, Box<str>)>,
    /// Until the permit is used.
    asked: Option<Asked>,
    /// Who asked.
    pub(crate) origin: Option<Origin>,
    is_withdrawn: bool,
    refused: AtomicBool,
    answered: AtomicBool,
    /// Whoever asked lives, and is another target than the one that is configured now.
    is_elsewhere: AtomicBool,
}

impl Taken {
    /// Takes the question that `server` asked under the id that the client knows.
    pub(crate) fn take(line: &Line, session: &Arc<Session>, server: &ServerName, client_id: &str) -> Option<Self> {
        if session.asker(client_id).as_ref() != Some(server) {
            return None;
        }
        let asked = session.answered(client_id)?;
        Some(Self {
            line: line.clone(),
            session: Arc::clone(session),
            server: asked.server.clone(),
            id: asked.id.clone(),
            digest: asked.digest,
            method: asked.method.clone(),
            origin: asked.origin,
            is_withdrawn: asked.is_withdrawn,
            tokens: asked.token.clone().map(|token| (asked.shown.clone(), token)),
            asked: Some(asked),
            refused: AtomicBool::new(false),
            answered: AtomicBool::new(false),
            is_elsewhere: AtomicBool::new(false),
        })
    }

    /// What was asked.
    pub(crate) const fn method(&self) -> &str {
        &self.method
    }

    /// The answer travels under the permit for asking. From here on there is one answer, or none.
    pub(crate) fn permit(&mut self) -> Option<Permit> {
        self.asked.take().map(|asked| asked.permit)
    }

    /// The process that asked, if it lives, and waits for the answer still: also one that the session has left for another
    /// since, while the call in whose course it asked goes on there. `None`: no process asked.
    ///
    /// SECURITY: what came in its place may have asked something else under this id. And one that a reload has moved is told
    /// nothing of the client any more: it is answered no.
    pub(crate) fn asker(&self, server: &Server, answer: Option<&Message>) -> Result<Option<Arc<Pipe>>, Stop> {
        let Some(origin) = self.origin else { return Ok(None) };
        if self.is_withdrawn {
            return Err(Stop::answered_late());
        }
        match self.session.living(origin) {
            Some((pipe, fingerprint)) if fingerprint == server.fingerprint => {
                self.promise(answer);
                Ok(Some(pipe))
            }
            Some(_) => {
                self.is_elsewhere.store(true, Ordering::Release);
                Err(late("whoever asked is not the server that is configured now"))
            }
            None => Ok(None),
        }
    }

    /// The session with a web server in which it asked, if that is the one which is there, and waits for the answer still.
    ///
    /// SECURITY: in the one after it the server may have asked something else under this id.
    pub(crate) fn way_back(&self, leg: Option<Arc<Leg>>, answer: Option<&Message>) -> Result<Arc<Leg>, Stop> {
        if self.is_withdrawn {
            return Err(Stop::answered_late());
        }
        let asked = leg.filter(|leg| self.origin == Some(leg.origin));
        let leg = asked.ok_or_else(|| late("whoever asked is gone"))?;
        self.promise(answer);
        Ok(leg)
    }

    /// The answer must not pass, now or later.
    pub(crate) fn refuse(&self) {
        self.refused.store(true, Ordering::Release);
    }

    /// The answer is on its way. Whoever waits for it here is there.
    pub(crate) fn answer(&self, answer: Option<&Message>) {
        if self.origin.is_none() {
            self.promise(answer);
        }
        self.answered.store(true, Ordering::Release);
    }

    /// Where the answer is a task, the server may ask for that as soon as it has it.
    fn promise(&self, answer: Option<&Message>) {
        if self.session.route == Route::All
            && let Some(task) = answer.and_then(promised)
        {
            let tokens = self.tokens.as_ref().map(|(shown, token)| (&**shown, &**token));
            self.session.promise(&task, (&self.server, self.origin), &self.method, tokens);
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let is_elsewhere = self.is_elsewhere.load(Ordering::Acquire);
        if (self.answered.load(Ordering::Acquire) && !is_elsewhere) || self.session.is_over() {
            return;
        }
        // Where the runtime is gone, so are the servers.
        let runtime = tokio::runtime::Handle::try_current();
        match self.asked.take() {
            Some(asked) if !self.refused.load(Ordering::Acquire) => {
                let shown = asked.shown.clone();
                if let (Some(forgotten), Ok(runtime)) = (self.session.ask_again(&shown, asked), runtime) {
                    let (line, session) = (self.line.clone(), Arc::clone(&self.session));
                    runtime.spawn(async move { forget(&line, &session, &forgotten).await });
                }
            }
            // Whoever took it back waits for nothing.
            Some(_) | None if self.is_withdrawn => {}
            Some(_) | None => {
                if let Ok(runtime) = runtime {
                    let no = if is_elsewhere {
                        No {
                            code: error::UPSTREAM_DOWN,
                            why: "the server was configured anew in the course of the call",
                        }
                    } else {
                        No { code: error::REFUSED_GUARD, why: "the client's answer was refused" }
                    };
                    let (line, session) = (self.line.clone(), Arc::clone(&self.session));
                    let (server, origin, id) = (self.server.clone(), self.origin, self.id.clone());
                    runtime.spawn(async move { no.tell(&line, &session, (&server, origin), &id).await });
                }
            }
        }
    }
}

/// Gives up a question for which too many came after it.
pub(crate) async fn forget(line: &Line, session: &Arc<Session>, asked: &Asked) {
    if asked.is_withdrawn {
        return;
    }
    let no =
        No { code: error::REFUSED_LIMIT, why: "too many questions wait for their answer; this one was the oldest" };
    line.state.journal.forgotten(&asked.server, &asked.method, no.why);
    no.tell(line, session, (&asked.server, asked.origin), &asked.id).await;
}

/// Why an answer goes nowhere.
fn late(why: &str) -> Stop {
    let mut stop = Stop::answered_late();
    why.clone_into(&mut stop.message);
    stop
}

/// Why a question stays without an answer.
struct No {
    code: i64,
    why: &'static str,
}

impl No {
    /// Tells the server that asked, which waits for nothing then.
    async fn tell(
        self,
        line: &Line,
        session: &Arc<Session>,
        (server, origin): (&ServerName, Option<Origin>),
        id: &str,
    ) {
        let now = line.state.line();
        let Some(server) = now.snapshot.servers.get(server) else { return };
        let text = error::error_text(Some(id), self.code, self.why, None);
        let fault = UpstreamFault::Round { code: error::UPSTREAM_DOWN, why: self.why.to_owned(), retry_after: None };
        decline(&now, (server, origin), Some(session), text, fault).await;
    }
}

/// Sends the refusal of a question to the server that asked it. `fault` is what it means to the call in whose course it was
/// asked, where no server can be told.
pub(crate) async fn decline(
    line: &Line,
    (server, origin): (&Arc<Server>, Option<Origin>),
    session: Option<&Arc<Session>>,
    text: bytes::Bytes,
    fault: UpstreamFault,
) {
    // It may be another than the one that the session uses now.
    if let Some((process, _)) = session.zip(origin).and_then(|(session, origin)| session.living(origin)) {
        if let Err(fault) = process.write(text).await {
            tracing::debug!(server = %server.name, %fault, "a question could not be declined");
        }
        return;
    }
    let Ok(injected) = crate::inject::credentials(&line.state, server) else { return };
    let limits = line.snapshot.answer_limits();
    let hop = Hop { state: &line.state, server, injected: &injected, limits };
    let Ok(answer) = exchange::one(text, &limits) else { return };
    // Whoever carries a modern server's question waits here, not there.
    if session.is_some_and(|session| session.upward.deny(&server.name, &answer, fault)) {
        return;
    }
    let leg = session.and_then(|session| session.leg(server));
    // Whoever is there in its place asked nothing.
    if origin.is_some_and(|origin| leg.as_ref().is_none_or(|leg| leg.origin != origin)) {
        return;
    }
    let sending = hop.send(leg.as_deref(), &answer);
    match tokio::time::timeout(server.deadline, sending).await {
        Ok(Ok(_)) => {}
        Ok(Err(fault)) => tracing::debug!(server = %server.name, %fault, "a question could not be declined"),
        Err(_) => tracing::debug!(server = %server.name, "a server did not take the refusal of its question in time"),
    }
}
