//! What a server at the other end of a pipe is sent: requests under numbers of ours, everything else as it is.

use super::{
    Carrier, Pipe, Taken,
    backlog::backlog,
    early::BLOCKING,
    lock,
    replies::Replies,
    waiting::{Asked, Asker, Hears, Waiting},
};
use crate::upstream::{Arrival, UpstreamFault, exchange};
use bytes::Bytes;
use mcp::{Kind, Message};
use std::{
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::time::{Instant, timeout};

/// How long a POST may stay open when its request is over.
const LEFT_OPEN: Duration = Duration::from_secs(1);

impl Pipe {
    /// Sends a request. What comes back carries the client's id and token again.
    pub(crate) async fn request(
        self: &Arc<Self>,
        message: &Message,
        asker: Asker,
        hears: Hears,
    ) -> Result<Taken<Replies>, UpstreamFault> {
        // Where several share it nobody is asked.
        let introduces = message.method() == "initialize" && !self.shared;
        if introduces && message.param(&["capabilities", "roots"]).is_some() {
            self.roots.declared();
        }
        let waits = asker == Asker::Gateway && hears == Hears::Questions && !self.roots.is_settled();
        *lock(&self.used) = Instant::now();
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let ours = number.to_string();
        let mut edits = Vec::with_capacity(2);
        let Some(id) = message.id_member() else {
            return Err(UpstreamFault::Protocol("a request without an id".to_owned()));
        };
        edits.push((id.span.clone(), ours.clone().into_bytes()));
        let token = message.progress_token_member().map(|member| {
            edits.push((member.span.clone(), ours.into_bytes()));
            Box::from(String::from_utf8_lossy(member.raw))
        });
        let line = mcp::splice(message.bytes(), &mut edits);
        let (speaker, messages) = backlog(&self.backlogs);
        let id = Box::from(message.id().unwrap_or_default());
        let asked = Asked::default();
        let is_sent = !waits;
        self.wait(
            number,
            Waiting { hears, asker, id, token, is_sent, taken_back: false, rests: false, asked, speaker },
        );
        if hears == Hears::Questions {
            lock(&self.early).is_called();
        }
        let mut replies = Replies::new(Arc::clone(self), number, messages);
        if waits {
            tokio::spawn(Arc::clone(self).post_behind_roots(number, line));
            return Ok(Taken::Yes(replies));
        }
        let taken = match &self.carrier {
            Carrier::Process(_) => self.post(line).await?,
            Carrier::Stream(_) => self.post_beside(&mut replies, number, line).await?,
        };
        Ok(match taken {
            Taken::Yes(()) => Taken::Yes(replies),
            Taken::No(refusal) => Taken::No(Box::new(self.renamed(*refusal, number, message))),
        })
    }

    /// Waits until a call over the bridge may be made, which has this long in all. One call comes at once: the roots are asked for
    /// in its course.
    pub(crate) async fn has_roots(&self, most: Duration) {
        // The server is to have time left for the call.
        self.roots.claimed(BLOCKING.min(most / 2)).await;
    }

    /// From now on the server may speak in the course of this request.
    fn wait(&self, number: u64, waiting: Waiting) {
        let mut table = lock(&self.waiting);
        if waiting.may_be_asked() {
            self.turns.comes_in();
        }
        table.insert(number, waiting);
    }

    /// Sends a request as soon as the server knows the roots, unless nobody waits for it any more.
    async fn post_behind_roots(self: Arc<Self>, number: u64, line: Bytes) {
        self.roots.settled(BLOCKING).await;
        if !self.is_to_be_sent(number).await {
            return;
        }
        match &self.carrier {
            Carrier::Process(_) => {
                if let Err(fault) = self.post(line).await {
                    self.end(number, fault);
                }
            }
            Carrier::Stream(_) => Arc::clone(&self).see_off(number, Box::pin(self.posting(line)), false).await,
        }
    }

    /// Whether a request that was held back is to be sent: once its client, if that is asked, has answered. Whoever asks in its
    /// course is not to find it at rest.
    async fn is_to_be_sent(&self, number: u64) -> bool {
        loop {
            let mut moved = pin!(self.moved.notified());
            // In line before the look.
            moved.as_mut().enable();
            match lock(&self.waiting).get_mut(&number) {
                None => return false,
                Some(waiting) if !waiting.rests && self.roots.owed(|id| waiting.asked.has(id)).is_none() => {
                    waiting.is_sent = true;
                    return true;
                }
                Some(_) => {}
            }
            moved.await;
        }
    }

    /// Sends a request, until the server has taken it or says something in its course: one of 2024-11-05 may leave the POST
    /// open for as long as it likes. It stays open while the request is under way, or some would take the client for gone.
    async fn post_beside(
        self: &Arc<Self>,
        replies: &mut Replies,
        number: u64,
        line: Bytes,
    ) -> Result<Taken<()>, UpstreamFault> {
        let mut posting = Box::pin(Arc::clone(self).posting(line));
        tokio::select! {
            biased;
            taken = &mut posting => return taken,
            () = replies.begins() => {}
        }
        tokio::spawn(Arc::clone(self).see_off(number, posting, true));
        Ok(Taken::Yes(()))
    }

    async fn posting(self: Arc<Self>, line: Bytes) -> Result<Taken<()>, UpstreamFault> {
        self.post(line).await
    }

    /// Waits for what becomes of a POST, until its request is over. Where the server has spoken in its course, it has the request:
    /// what breaks off the POST then is no matter, and may not be its own.
    async fn see_off<F>(self: Arc<Self>, number: u64, mut posting: Pin<Box<F>>, has_spoken: bool)
    where
        F: Future<Output = Result<Taken<()>, UpstreamFault>> + Send,
    {
        let posted = loop {
            match timeout(LEFT_OPEN, &mut posting).await {
                Ok(posted) => break posted,
                Err(_) if lock(&self.waiting).contains_key(&number) => {}
                Err(_) => return,
            }
        };
        match posted {
            Ok(Taken::Yes(())) => {}
            Ok(Taken::No(refusal)) => match self.answer_of(&refusal, number) {
                Some(answer) => drop(self.deliver_response(&answer)),
                // Said by what lies between.
                None if has_spoken && matches!(refusal.status().as_u16(), 502..=504) => {}
                None => self.end(number, UpstreamFault::Status(refusal.status())),
            },
            Err(_) if has_spoken => {}
            Err(fault) => self.end(number, fault),
        }
    }

    /// The answer that a refusal is, if it names the request.
    fn answer_of(&self, refusal: &Arrival, number: u64) -> Option<Message> {
        match refusal {
            Arrival::Whole { body, .. } => self.answer_in(body, number),
            Arrival::Bare { .. } | Arrival::Stream { .. } => None,
        }
    }

    /// Ends a request without an answer, if it has none yet.
    fn end(&self, number: u64, fault: UpstreamFault) {
        if let Some(waiting) = lock(&self.waiting).remove(&number) {
            waiting.speaker.end(Err(fault));
        }
    }

    /// A refusal that names the request by its number here, under the client's id. What it names otherwise stays.
    fn renamed(&self, refusal: Arrival, number: u64, message: &Message) -> Arrival {
        let Arrival::Whole { status, headers, body } = refusal else { return refusal };
        let named = self.answer_in(&body, number);
        let body = named.map_or(body, |refusal| refusal.under_id(message.id().unwrap_or_default()));
        Arrival::Whole { status, headers, body }
    }

    /// What is read as the answer to a request.
    fn answer_in(&self, body: &Bytes, number: u64) -> Option<Message> {
        let key = mcp::id_key(&number.to_string());
        let answer = exchange::one(body.clone(), &self.limits).ok()?;
        let is_meant = answer.kind() == Kind::Response && answer.id().is_some_and(|id| mcp::id_key(id) == key);
        is_meant.then_some(answer)
    }

    /// Sends a notification or a response.
    pub(crate) async fn tell(&self, message: &Message, asker: Asker) -> Result<Taken<()>, UpstreamFault> {
        // A cancellation names the request by the client's id; on the pipe it has ours.
        // SECURITY: on a shared process others have requests with the same id.
        if message.method() == "notifications/cancelled"
            && let Some(named) = message.param(&["requestId"])
        {
            let key = mcp::id_key(&String::from_utf8_lossy(named.raw));
            let meant = |waiting: &Waiting| waiting.asker == asker && mcp::id_key(&waiting.id) == key;
            let number = lock(&self.waiting).iter_mut().find(|(_, waiting)| meant(waiting)).map(|(number, waiting)| {
                waiting.taken_back = true;
                *number
            });
            let Some(number) = number else { return Ok(Taken::Yes(())) };
            let line = mcp::splice(message.bytes(), &mut [(named.span.clone(), number.to_string().into_bytes())]);
            return self.post(line).await;
        }
        let opens = message.method() == "notifications/initialized";
        if opens {
            // Before it hears of it: it may speak at once.
            lock(&self.early).opens();
            self.roots.awaited();
        }
        let taken = self.post(message.bytes().clone()).await;
        if opens {
            // It may be far away.
            self.roots.awaited();
        }
        if message.kind() == Kind::Response
            && let Some(id) = message.id()
        {
            self.is_answered(id);
        }
        taken
    }

    /// Writes one line of the gateway's own as it is.
    pub(crate) async fn write(&self, line: Bytes) -> Result<(), UpstreamFault> {
        match self.post(line).await? {
            Taken::Yes(()) => Ok(()),
            Taken::No(refusal) => Err(UpstreamFault::Status(refusal.status())),
        }
    }

    async fn post(&self, line: Bytes) -> Result<Taken<()>, UpstreamFault> {
        if !self.is_alive() {
            return Err(self.unsent());
        }
        // On the pipe a line break ends the message; in JSON it can only be white space.
        let line = if line.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
            line.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }).collect::<Vec<_>>().into()
        } else {
            line
        };
        let sending = async {
            match &self.carrier {
                Carrier::Process(child) => {
                    child.send(line).await.map_err(|fault| UpstreamFault::Down(fault.to_string()))?;
                    Ok(Taken::Yes(()))
                }
                Carrier::Stream(stream) => {
                    let refusal = Box::pin(stream.send(line)).await?;
                    Ok(refusal.map_or(Taken::Yes(()), |refusal| Taken::No(Box::new(refusal))))
                }
            }
        };
        let sent = timeout(self.patience, sending).await;
        sent.unwrap_or(Err(UpstreamFault::Timeout(self.patience)))
    }
}
