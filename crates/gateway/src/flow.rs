//! A streamed answer: each message is judged by the snapshot of its moment, then passed on as it came.
//!
//! What comes at once is passed on at once; whatever lasts runs on a task of its own. A client that goes away means what its era says: in the legacy era the call
//! goes on until it is taken back in words, in the modern era it is cancelled by letting go of the server's stream.

mod end;
pub(crate) mod follow;
mod keep;
mod pass;
mod watch;
mod withdraw;

use crate::{
    bridge::Crossing,
    forward::Exchange,
    origin::Origin,
    pipeline::Line,
    reply::ReplyBody,
    rim::UnderWay,
    session::{
        replay::{Keeper, Watch},
        taken_back,
    },
    state::{Lasts, State},
    stop::{Cause, Stop},
    trail::Trail,
    upstream::{Source, UpstreamFault},
};
use bytes::Bytes;
use end::End;
use futures_util::FutureExt;
use guard::Carry;
use http::StatusCode;
use mcp::{Era, Message, bridge::BridgeFault, sse::Event};
use std::{panic::AssertUnwindSafe, pin::pin, sync::Arc, time::Duration};
use tokio::{sync::mpsc, time::Instant};
use vocab::ServerName;

/// Events that wait for a client.
const BACKLOG: usize = 16;
/// Bytes for each of their places: what is larger waits until as many are free.
const PLACE: usize = 64 << 10;
/// How long a stream may be silent before a comment keeps it alive.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How often the right to listen is looked at again.
pub(crate) const RECHECK: Duration = Duration::from_millis(500);
/// How long a client that does not read holds a stream.
pub(crate) const STALLED: Duration = Duration::from_mins(1);

/// How long an answer is waited for before it becomes a stream of unknown length. What was said already never waits,
/// unless it is the answer itself: then for the end of the stream.
const AT_ONCE: Duration = Duration::from_millis(1);

/// How many events are passed on at once.
const BURST: usize = 4;

/// What a source gives.
type Heard = Result<Option<(Option<ServerName>, Event)>, UpstreamFault>;

/// A stream on its way to the client.
pub(crate) struct Flow {
    source: Source,
    exchange: Box<Exchange>,
    carry: Carry,
    /// The server gave the client a place from which it can go on there.
    resumable: bool,
    /// What a listener is told of the lists.
    watch: Option<Box<watch::Watch>>,
    /// Which resources may be told of.
    follows: Option<Box<follow::Follows>>,
    /// Keeps what is said for a client that comes back here.
    keeper: Option<Keeper>,
    /// What the last event was.
    passed: Passed,
    /// Who asks on a stream of HTTP: the session that it was opened in.
    leg: Option<Origin>,
    /// Something that one of several servers said was left out.
    has_left_out: bool,
}

/// What an event was.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Passed {
    /// No message.
    Comment,
    /// A message before the answer, or after.
    Message,
    /// The answer.
    Answer,
}

impl Flow {
    pub(crate) fn new(source: Source, exchange: Box<Exchange>) -> Self {
        let session = exchange.target.session().or(exchange.opened.as_ref());
        let leg = session.zip(exchange.target.one()).and_then(|(session, one)| session.origin_of(&one.server.name));
        Self {
            source,
            exchange,
            carry: Carry::default(),
            resumable: false,
            keeper: None,
            passed: Passed::Comment,
            watch: None,
            follows: None,
            leg,
            has_left_out: false,
        }
    }

    pub(crate) const fn exchange(&self) -> &Exchange {
        &self.exchange
    }

    /// Who asked what came last, if it is a question of a server that is told the answer itself.
    fn origin(&self) -> Option<Origin> {
        match &self.source {
            Source::Pipe(replies) => Some(replies.origin()),
            Source::Kept(reader) => reader.origin(),
            Source::Http(_) | Source::Resumed(_) => self.leg,
            Source::Bridged(_) | Source::Talked(_) | Source::Told(_) | Source::Made { .. } => None,
        }
    }

    /// Passes on what is there at once. Most answers are one event: then neither a task nor a channel is needed.
    pub(crate) async fn begin(mut self: Box<Self>, state: &Arc<State>, mut trail: Trail) -> ReplyBody {
        let mut said: Option<(Bytes, Passed)> = None;
        let mut more = None;
        // An answer and its end, with a word or two that concern somebody else: whatever goes on longer is a stream.
        for _ in 0..BURST {
            if self.listens() || !(said.is_none() || self.exchange.answered) {
                break;
            }
            let Some(event) = soon(self.source.next()).await else { break };
            match self.take(event, state, &mut trail).await {
                Ok(None) => {}
                Ok(Some(bytes)) if said.is_none() => said = Some((bytes, self.passed)),
                Ok(Some(bytes)) => {
                    more = Some((bytes, self.passed));
                    break;
                }
                Err(end) => {
                    self.settle(state);
                    let said = said.map(|(said, _)| said).unwrap_or_default();
                    return ReplyBody::from(match self.close(end, trail) {
                        None => said,
                        Some(word) => [said, word].concat().into(),
                    });
                }
            }
        }
        ReplyBody::Stream(self.start([said, more], Arc::clone(state), trail))
    }

    /// Lets the stream run on a task of its own, after what was said already. The trail closes when it ends.
    fn start(
        mut self: Box<Self>,
        said: [Option<(Bytes, Passed)>; 2],
        state: Arc<State>,
        mut trail: Trail,
    ) -> mpsc::Receiver<Bytes> {
        let (sender, receiver) = mpsc::channel(BACKLOG);
        self.keeper = self.keeper();
        // There is room: the channel is new.
        if let Some(primer) = self.primer() {
            let _ = sender.try_send(primer);
        }
        for (said, passed) in said.into_iter().flatten() {
            let _ = sender.try_send(self.keep(said, passed));
        }
        // A stop of the gateway waits for answers, not for those who listen.
        let under_way = if self.listens() { None } else { Some(UnderWay::begin(&state)) };
        let open = state.census.stream();
        self.exchange.call.last();
        tokio::spawn(async move {
            let mut client = Some(sender);
            let end = AssertUnwindSafe(self.pump(&state, &mut trail, &mut client)).catch_unwind().await;
            let end = end.unwrap_or_else(|_| End::Stopped(Box::new(trail.panicked())));
            self.settle(&state);
            let (withdrawn, last) = (self.withdrawals(&end), self.close(end, trail));
            let mut words: Vec<Bytes> = withdrawn.into_iter().map(|word| self.keep(word, Passed::Message)).collect();
            if let Some(word) = last {
                let passed = if word.starts_with(b":") { Passed::Comment } else { Passed::Answer };
                words.push(self.keep(word, passed));
            }
            // The server's stream and the call's places wait for no client that reads slowly. Whoever takes the stream up
            // again reads it to its end from what is kept.
            drop(self);
            if let Some(client) = client {
                for word in words {
                    if !say(&client, word, STALLED).await {
                        break;
                    }
                }
            }
            drop((under_way, open));
        });
        receiver
    }

    /// A session that was opened for an answer that did not come is none. Where the server gave a place to go on from, it
    /// may still come, if its client comes back for it.
    fn settle(&self, state: &Arc<State>) {
        let Some(session) = self.exchange.opened.as_ref().filter(|_| !self.exchange.answered) else { return };
        if self.resumable {
            session.await_client();
        } else {
            state.end_session(session);
        }
    }

    /// Closes the record, which waits for nobody. Gives what is left to say as the last message of the stream.
    fn close(&self, end: End, trail: Trail) -> Option<Bytes> {
        match end {
            End::Complete => {
                trail.close_answered(StatusCode::OK);
                None
            }
            End::Concluded => {
                trail.close_answered(StatusCode::OK);
                self.conclusion(mcp::bridge::downward::listen_again)
            }
            End::Moved => {
                trail.close_answered(StatusCode::OK);
                self.conclusion(mcp::bridge::downward::listen_result)
            }
            End::Stopped(stop) => {
                let word = self.last_word(&stop, &trail);
                trail.close_stopped(&stop);
                Some(word)
            }
            End::Cancelled => {
                // Unclosed: it records itself abandoned.
                drop(trail);
                None
            }
        }
    }

    /// What the server said, judged: what the client gets of it, or the end. A panic is an end as others are.
    async fn take(&mut self, event: Heard, state: &Arc<State>, trail: &mut Trail) -> Result<Option<Bytes>, End> {
        let judged = AssertUnwindSafe(pin!(self.judge(event, state, trail))).catch_unwind().await;
        judged.unwrap_or_else(|_| Err(End::Stopped(Box::new(trail.panicked()))))
    }

    async fn judge(&mut self, event: Heard, state: &Arc<State>, trail: &mut Trail) -> Result<Option<Bytes>, End> {
        match event {
            Ok(None) => Err(self.complete()),
            Ok(Some((from, event))) => {
                // A server that never pauses must not keep other looks at the right to listen from their turn.
                let line = state.line();
                self.still_allowed(&line).map_err(|stop| End::Stopped(Box::new(stop)))?;
                if self.leads_elsewhere(&line) {
                    return Err(End::Moved);
                }
                let passed = self.pass_or_leave_out(&line, trail, from, event).await;
                passed.map_err(|stop| End::Stopped(Box::new(stop)))
            }
            Err(fault) => Err(self.broken(&fault)),
        }
    }

    async fn pump(&mut self, state: &Arc<State>, trail: &mut Trail, client: &mut Option<mpsc::Sender<Bytes>>) -> End {
        let modern = self.exchange.call.era == Era::Modern;
        let turn = self.keeper.as_ref().map(Keeper::watch);
        let mut recheck = tokio::time::interval(RECHECK);
        recheck.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut ended = self.exchange.target.session().map(|session| session.end());
        let mut stopping = Some(state.stopping.subscribe());
        let mut taken_back = pin!(taken_back(self.exchange.errand.as_ref()));
        let idle = state.line().snapshot.settings.bounds.stream_idle;
        let listens = self.listens();
        // Who reads what is kept may go at any time, and be silent as long as the call that is answered: that has bounds.
        let is_free = listens || self.reads_call();
        if listens {
            self.watch = watch::Watch::begin(&state.line(), &self.exchange, self.passes()).map(Box::new);
        }
        let (mut heard, mut spoken) = (Instant::now(), Instant::now());
        loop {
            // SPEC: the result is the last word of a stream of subscriptions.
            if modern && listens && self.exchange.answered {
                return End::Complete;
            }
            tokio::select! {
                biased;
                // First: a server that never pauses must not keep it from its turn.
                () = &mut taken_back => return self.taken_back(),
                event = self.source.next() => {
                    heard = Instant::now();
                    spoken = heard;
                    if ended.as_ref().is_some_and(|ended| *ended.borrow()) {
                        return self.without_session(state, is_free);
                    }
                    // Boxed: while nothing is said, a stream keeps no room for what judges it.
                    match Box::pin(self.take(event, state, trail)).await {
                        Ok(None) => {}
                        Ok(Some(bytes)) => {
                            let bytes = self.keep(bytes, self.passed);
                            // The answer, once judged, is the client's, if it reads it in time.
                            let answers = self.passed == Passed::Answer;
                            let heard = match client {
                                None => true,
                                Some(sender) => tokio::select! {
                                    heard = say(sender, bytes, STALLED) => heard,
                                    () = taken(turn.as_ref()) => false,
                                    // A client that reads nothing has taken it back all the same, or has no right to it.
                                    () = &mut taken_back => return self.taken_back(),
                                    stop = self.forbidden(state), if !answers => return End::Stopped(Box::new(stop)),
                                },
                            };
                            if !heard {
                                if modern || is_free {
                                    return self.left(is_free);
                                }
                                *client = None;
                            }
                        }
                        Err(end) => return end,
                    }
                }
                () = closed(client.as_ref()), if client.is_some() => {
                    if modern || is_free {
                        return self.left(is_free);
                    }
                    *client = None;
                }
                // SPEC: a message goes out on one stream. Who comes back takes it over.
                () = taken(turn.as_ref()), if client.is_some() => *client = None,
                () = changed(&mut self.watch) => {
                    let words = self.look(state);
                    if !words.is_empty() {
                        spoken = Instant::now();
                    }
                    if !self.tell(words, client.as_ref()).await {
                        return self.left(is_free);
                    }
                }
                _ = recheck.tick() => {
                    let line = state.line();
                    if let Err(stop) = self.still_allowed(&line) {
                        return End::Stopped(Box::new(stop));
                    }
                    if self.leads_elsewhere(&line) {
                        return End::Moved;
                    }
                    if self.follows_others(&line) {
                        // Lists may have changed by the same: the next stream begins with what is listed then, and is silent.
                        let words = self.look(state);
                        return if self.tell(words, client.as_ref()).await { End::Concluded } else { self.left(is_free) };
                    }
                    if let Some(watch) = &mut self.watch {
                        watch.check(&line, &self.exchange.caller.subject);
                    }
                    if !is_free && heard.elapsed() > idle && !self.source.is_due() {
                        return self.broken(&UpstreamFault::Timeout(idle));
                    }
                    if spoken.elapsed() > KEEP_ALIVE {
                        spoken = Instant::now();
                        if let Some(client) = client {
                            let _ = client.try_send(Bytes::from_static(b": keep-alive\n\n"));
                        }
                    }
                }
                true = over(&mut ended) => return self.without_session(state, is_free),
                true = over(&mut stopping), if listens => return End::Concluded,
            }
        }
    }

    /// Whether the stream is its server's own.
    const fn passes(&self) -> bool {
        matches!(self.source, Source::Http(_) | Source::Resumed(_))
    }

    /// A stream that lasts as long as the client wants: GET, and `subscriptions/listen`. The rest of a call, which is asked
    /// for with GET too, ends with its answer.
    fn listens(&self) -> bool {
        self.exchange.call.listens() && !self.reads_call()
    }

    /// Whether its owner may still have it. Who waits for an answer is told that what it asked for may have happened.
    fn still_allowed(&mut self, line: &Line) -> Result<(), Stop> {
        let listens = self.listens();
        let lasts = if listens { Lasts::AsListened } else { Lasts::ForAnswer(self.origin()) };
        line.still_allowed(&mut self.exchange, lasts).map_err(|mut stop| {
            if !listens {
                stop.message.push_str("; what was asked for may have been done");
            }
            stop
        })
    }

    /// Waits until its owner may not have it any longer.
    async fn forbidden(&mut self, state: &Arc<State>) -> Stop {
        loop {
            tokio::time::sleep(RECHECK).await;
            if let Err(stop) = self.still_allowed(&state.line()) {
                return stop;
            }
        }
    }

    /// What is to be said of lists that changed.
    fn look(&mut self, state: &Arc<State>) -> Vec<Bytes> {
        let line = state.line();
        if self.still_allowed(&line).is_err() {
            return Vec::new();
        }
        let (caller, request) = (&self.exchange.caller, self.exchange.call.message());
        self.watch.as_mut().map(|watch| watch.look(&line, caller, request)).unwrap_or_default()
    }

    /// Tells the client words of ours. `false` if it is gone.
    async fn tell(&self, words: Vec<Bytes>, client: Option<&mpsc::Sender<Bytes>>) -> bool {
        for word in words {
            if self.keeps_word(&word) {
                continue;
            }
            if let Some(client) = client
                && !say(client, mcp::sse::encode(&word, None), STALLED).await
            {
                return false;
            }
        }
        true
    }

    /// Says a word of ours on the listening stream of the session, where it is kept for a client that comes back.
    fn keeps_word(&self, word: &Bytes) -> bool {
        let is_kept = self.reader().is_some() && !self.reads_call();
        is_kept && self.exchange.target.session().is_some_and(|session| session.say(None, None, word))
    }

    /// Whether the server is another by now, or of another era: who listens would never hear the one that is there. What the
    /// gateway says itself goes on as long as a way leads there, and so do calls, which end where they began.
    fn leads_elsewhere(&self, line: &Line) -> bool {
        let Some(one) = self.exchange.target.one().filter(|_| self.listens()) else { return false };
        let Some(now) = line.snapshot.servers.get(&one.server.name) else { return false };
        let crossing = Crossing::to(self.exchange.call.era, now);
        let passes = one.crossing == Crossing::None && self.reader().is_none();
        let is_other = now.fingerprint != one.server.fingerprint || crossing != Some(Crossing::None);
        crossing.is_none() || (passes && is_other)
    }

    fn stop(&self, fault: &UpstreamFault) -> Stop {
        match self.exchange.target.one() {
            Some(one) => fault.stop(&one.server.name),
            None => Stop::withheld("upstream-protocol", mcp::error::UPSTREAM_DOWN, "a server's answer is not MCP"),
        }
    }

    /// The answer to `subscriptions/listen`, as an event.
    ///
    /// SPEC: it tells the client that its stream was ended, and not cut. In the legacy era nobody asked with a message.
    fn conclusion(&self, result: fn(&Message) -> Result<Bytes, BridgeFault>) -> Option<Bytes> {
        let request = self.exchange.call.message().filter(|_| self.listens() && !self.exchange.answered)?;
        Some(mcp::sse::encode(&result(request).ok()?, None))
    }

    /// The error that ends a stream, as an event.
    fn last_word(&self, stop: &Stop, trail: &Trail) -> Bytes {
        let id = self.exchange.call.message().and_then(Message::id);
        if id.is_none() || self.exchange.answered || (self.resumable && stop.cause == Cause::Failed) {
            return Bytes::from_static(b": the stream ends\n\n");
        }
        let mut data = stop.data.clone();
        data.insert("call".to_owned(), trail.facts().call.to_string().into());
        let text = mcp::error_text(id, stop.code, &stop.message, Some(&data.into()));
        mcp::sse::encode(&text, None)
    }
}

/// Hands bytes to a client. `false` if it is gone, or reads nothing for as long as `patience`. What waits for it is bounded
/// by size, too: what is large waits until there is as much less of it.
pub(crate) async fn say(client: &mpsc::Sender<Bytes>, bytes: Bytes, patience: Duration) -> bool {
    let places = bytes.len().div_ceil(PLACE).clamp(1, client.max_capacity());
    let Ok(Ok(mut free)) = tokio::time::timeout(patience, client.reserve_many(places)).await else { return false };
    free.next().map(|place| place.send(bytes)).is_some()
}

/// Waits until the client is gone.
async fn closed(client: Option<&mpsc::Sender<Bytes>>) {
    match client {
        Some(client) => client.closed().await,
        None => std::future::pending().await,
    }
}

/// What is there, or comes at once. An alarm is set only for what is not there.
async fn soon<T>(coming: impl Future<Output = T>) -> Option<T> {
    let mut coming = pin!(coming);
    match coming.as_mut().now_or_never() {
        Some(come) => Some(come),
        None => tokio::time::timeout(AT_ONCE, coming).await.ok(),
    }
}

/// Waits until somebody reads the stream in place of its first client.
async fn taken(watch: Option<&Watch>) {
    match watch {
        Some(watch) => watch.taken().await,
        None => std::future::pending().await,
    }
}

/// Waits for the end of the session, or of the gateway.
async fn over(ended: &mut Option<tokio::sync::watch::Receiver<bool>>) -> bool {
    match ended {
        Some(ended) => ended.wait_for(|ended| *ended).await.is_ok(),
        None => std::future::pending().await,
    }
}

/// Waits until lists may have changed.
async fn changed(watch: &mut Option<Box<watch::Watch>>) {
    match watch {
        Some(watch) => watch.due().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::{BACKLOG, PLACE, say};
    use bytes::Bytes;
    use std::time::Duration;
    use tokio::sync::mpsc;

    #[tokio::test]
    async fn a_client_that_reads_nothing_holds_up_nobody_for_ever() {
        let (client, reads) = mpsc::channel(1);
        assert!(say(&client, Bytes::from_static(b"one"), Duration::ZERO).await);
        assert!(!say(&client, Bytes::from_static(b"two"), Duration::ZERO).await);
        drop(reads);
        assert!(!say(&client, Bytes::from_static(b"three"), Duration::MAX).await);
    }

    #[tokio::test]
    async fn what_waits_for_a_client_is_few_or_small() {
        let (client, mut reads) = mpsc::channel(BACKLOG);
        for (length, expected) in [(1, BACKLOG), (PLACE, BACKLOG), (2 * PLACE, BACKLOG - 1), (100 * PLACE, 1)] {
            let mut waiting = 0;
            while say(&client, vec![b'x'; length].into(), Duration::ZERO).await {
                waiting += 1;
            }
            assert_eq!(waiting, expected, "{length}");
            for _ in 0..waiting {
                assert_eq!(reads.recv().await.map(|bytes| bytes.len()), Some(length));
            }
        }
    }
}
