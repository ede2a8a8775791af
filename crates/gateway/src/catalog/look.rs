//! Looks at servers: one look at a time, in the background, within one budget.
//!
//! Whoever needs the answer waits for it as long as it likes; the look goes on without it. What was seen of late serves
//! while it is looked at again; what is too old does not. Never decides what a caller may see.

use super::{Catalog, Changes, Tool, micros, read::tell_of_left_out};
use crate::{
    aggregate::{self, listen::News},
    bridge,
    manner::{self, Taken},
    pipeline::Line,
    server::{Server, ServerState, Transport, Unseen},
    session::{Leg, Way},
    settings::EraSettings,
    upstream::{
        UpstreamFault,
        exchange::{Hop, OWN_INTRODUCTION, OWN_META, has_modern, names_modern, one, said},
        pipe::Pipe,
    },
};
use bytes::Bytes;
use mcp::{Era, ListKind, Message, Revision};
use std::{
    sync::{Arc, MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

/// How long what was seen counts as fresh.
pub(super) const FRESH: Duration = Duration::from_mins(5);
/// How old it may be and still serve, while the server is looked at again. Then calls wait for that look.
pub(super) const OLDEST: Duration = Duration::from_hours(1);
/// How long one look may take in all. A server that may take longer for one answer may take that long.
const LOOK: Duration = Duration::from_mins(1);
/// How long whoever asks for many servers waits for one of them, counted from the beginning of the look.
pub(crate) const GLANCE: Duration = Duration::from_secs(2);
/// How long after a look that failed the next one may be.
const FAILED: Duration = Duration::from_secs(1);
/// How long after a look that a server asked for it may ask for the next.
const TOLD: Duration = Duration::from_secs(1);
/// How long after a look for what nobody heard the next such look may be: streams may break often, and of many listeners at
/// once.
const MISSED: Duration = Duration::from_secs(10);
/// How long a server's word that lists changed stands for what a look finds that was begun for another reason.
const SAID: Duration = Duration::from_secs(5);
/// How often a list that passes is compared with what is known.
const PASSING: Duration = Duration::from_secs(5);
/// How long a server that speaks the modern era may take to be introduced in the legacy one, and as long to list there.
pub(super) const BESIDE: Duration = Duration::from_secs(15);
/// How long a process may take to answer in an era it may not know.
const PROBE: Duration = Duration::from_secs(5);

/// What came of a look.
type Seen = Result<Arc<Catalog>, UpstreamFault>;

/// The looks at one server.
#[derive(Default)]
pub(crate) struct Looks {
    now: Option<Looking>,
    /// The server said that something changed, and will be looked at for that.
    due: bool,
    /// When the last look began that it asked for.
    told: Option<Instant>,
    /// Since when, in ticks, nobody may have heard what it said. It will be looked at for that.
    missed: Option<u64>,
    /// When it was looked at for that last.
    missed_at: Option<Instant>,
}

/// A look that is under way.
#[derive(Clone)]
pub(crate) struct Looking {
    began: Instant,
    seen: watch::Receiver<Option<Seen>>,
}

impl Looking {
    /// Waits for what comes of it. The look goes on, whoever waits.
    async fn wait(mut self, patience: Duration) -> Seen {
        match timeout(patience, self.seen.wait_for(Option::is_some)).await {
            Ok(Ok(seen)) => seen.clone().unwrap_or_else(|| Err(broken_off())),
            Ok(Err(_)) => Err(broken_off()),
            Err(_) => Err(UpstreamFault::Timeout(patience)),
        }
    }

    fn is_under_way(&self) -> bool {
        self.seen.has_changed().is_ok()
    }
}

fn broken_off() -> UpstreamFault {
    UpstreamFault::Down("the look at it was broken off".to_owned())
}

/// What is known of a server at this moment.
enum Known {
    /// What it offers.
    Catalog(Arc<Catalog>),
    /// It is being looked at.
    Looking(Looking),
    /// It could not be looked at a moment ago.
    Failed(UpstreamFault),
}

impl Known {
    /// Waits for what comes of it.
    async fn seen(self, server: &Server) -> Seen {
        match self {
            Self::Catalog(catalog) => Ok(catalog),
            Self::Looking(looking) => looking.wait(budget(server)).await,
            Self::Failed(fault) => Err(fault),
        }
    }
}

/// How long a look at this server may take.
fn budget(server: &Server) -> Duration {
    LOOK.max(server.deadline)
}

/// What came of asking a server in one era.
pub(super) enum Said {
    /// It speaks it, as this answer says, on this leg.
    Speaks(Option<Leg>, Message),
    /// It does not, and this is what came instead. Bounded, untrusted.
    Not(String),
    /// The same of the legacy era, from one that says that it speaks the modern one.
    Other(Option<Leg>, String),
    /// By configuration nobody asks it.
    NotAsked,
}

impl Said {
    fn refused(fault: &UpstreamFault) -> Self {
        Self::Not(match fault {
            UpstreamFault::Strange { why, .. } => why.clone(),
            fault => format!("`initialize`: {fault}"),
        })
    }

    pub(super) const fn speaks(&self) -> bool {
        matches!(self, Self::Speaks(..))
    }

    pub(super) fn why(&self) -> Option<&str> {
        match self {
            Self::Not(why) | Self::Other(_, why) => Some(why),
            Self::Speaks(..) | Self::NotAsked => None,
        }
    }
}

/// Why a server is looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Why {
    /// Somebody needs to know more than what was seen at this time, in ticks.
    Need(u64),
    /// It says that something changed.
    Told,
    /// It is asked with other credentials than before.
    Others,
    /// Since this time, in ticks, nobody may have heard what it said.
    Missed(u64),
}

impl Line {
    /// The tool called `name`, as clients of `era` are shown it. A name that is not known causes one look, within the bound
    /// of what clients may cause.
    pub(crate) async fn tool(
        &self,
        server: &Arc<Server>,
        era: Era,
        name: &str,
    ) -> Result<Option<Arc<Tool>>, UpstreamFault> {
        let tool = |catalog: &Catalog| catalog.spoken(bridge::spoken(era, server)).tools.get(name).map(Arc::clone);
        let catalog = self.catalog(server).await?;
        if let Some(tool) = tool(&catalog) {
            return Ok(Some(tool));
        }
        let catalog = self.look_for_a_client(server, catalog).await?;
        Ok(tool(&catalog))
    }

    /// Does what a name causes that is not known, whether it is or not.
    pub(crate) async fn miss(&self, server: &Arc<Server>) -> Result<(), UpstreamFault> {
        let catalog = self.catalog(server).await?;
        self.look_for_a_client(server, catalog).await.map(drop)
    }

    async fn look_for_a_client(&self, server: &Arc<Server>, known: Arc<Catalog>) -> Seen {
        if !self.may_look_for_a_client(server) {
            return Ok(known);
        }
        Box::pin(self.begin(server, Why::Need(known.looked_at)).seen(server)).await
    }

    /// What a server offers. Waits where nothing is known, or only what is too old.
    pub(crate) async fn catalog(&self, server: &Arc<Server>) -> Seen {
        match self.known(server) {
            Known::Catalog(catalog) => Ok(catalog),
            unknown => Box::pin(unknown.seen(server)).await,
        }
    }

    /// What a server offers, as far as that is known soon: one that hangs must not hold up what others have. One that
    /// failed before is looked at again, and not waited for.
    pub(crate) async fn glance(&self, server: &Arc<Server>) -> Option<Arc<Catalog>> {
        let failed = server.state.fault.load().is_some();
        match self.known(server) {
            Known::Catalog(catalog) => Some(catalog),
            Known::Looking(looking) if !failed => {
                let left = GLANCE.saturating_sub(looking.began.elapsed());
                Box::pin(looking.wait(left)).await.ok()
            }
            Known::Looking(_) | Known::Failed(_) => None,
        }
    }

    /// Looks at a server now. What is learned, or why nothing was, is kept with the server.
    pub async fn look(&self, server: &Arc<Server>) {
        let before = server.state.catalog.load().as_ref().map_or(0, |catalog| catalog.looked_at);
        // A look has its own budget: whoever asks for it here waits for its end.
        let _ = self.begin(server, Why::Need(before)).seen(server).await;
    }

    /// A server says that a list changed. What is seen by a look under way may be older than that.
    pub(crate) fn look_again(&self, server: &Arc<Server>) {
        self.look_anew(server, Why::Told);
    }

    /// What is given to a server is other than it was, and so may be what it offers.
    pub(crate) fn look_with_others(&self, server: &Arc<Server>) {
        self.look_anew(server, Why::Others);
    }

    /// Its stream was lost, its session or its process, at this time in ticks, and is there again. What it said meanwhile
    /// nobody heard, and one that was started anew may say nothing at all.
    pub(crate) fn look_for_missed(&self, server: &Arc<Server>, since: u64) {
        let (now, pause) = {
            let mut looks = server.state.looks();
            let is_due = looks.missed.is_some();
            looks.missed = looks.missed.max(Some(since));
            if is_due {
                return;
            }
            let pause = looks.missed_at.map(|last| MISSED.saturating_sub(last.elapsed())).unwrap_or_default();
            (looks.now.clone(), pause)
        };
        let (line, server) = (self.clone(), Arc::clone(server));
        tokio::spawn(async move {
            // What it sees may be older.
            if let Some(looking) = now {
                let _ = looking.wait(budget(&server)).await;
            }
            tokio::time::sleep(pause).await;
            let since = {
                let mut looks = server.state.looks();
                looks.missed_at = Some(Instant::now());
                looks.missed.take().unwrap_or(since)
            };
            let line = line.state.line();
            if let Some(current) = line.snapshot.servers.get(&server.name)
                && Arc::ptr_eq(&current.state, &server.state)
                && matches!(line.begin(current, Why::Missed(since)), Known::Failed(_))
            {
                // It was not there a moment ago: now it is.
                tokio::time::sleep(FAILED).await;
                line.begin(current, Why::Missed(since));
            }
        });
    }

    fn look_anew(&self, server: &Arc<Server>, why: Why) {
        let (now, pause) = {
            let mut looks = server.state.looks();
            if looks.due {
                return;
            }
            looks.due = true;
            let told = looks.told.filter(|_| why == Why::Told);
            (looks.now.clone(), told.map(|told| TOLD.saturating_sub(told.elapsed())).unwrap_or_default())
        };
        let (line, server) = (self.clone(), Arc::clone(server));
        tokio::spawn(async move {
            if let Some(looking) = now {
                let _ = looking.wait(budget(&server)).await;
            }
            tokio::time::sleep(pause).await;
            server.state.looks().due = false;
            let line = line.state.line();
            // As it is configured now, if it is.
            if let Some(now) = line.snapshot.servers.get(&server.name)
                && Arc::ptr_eq(&now.state, &server.state)
            {
                line.begin(now, why);
            }
        });
    }

    /// A list passes on its way to a client of `era`. A name on it that is not known is looked at before anybody calls it. The list
    /// itself does not become the catalog: servers may show one client less than another.
    pub(crate) fn passes(&self, server: &Arc<Server>, era: Era, kind: ListKind, list: &Message) {
        let Some(catalog) = server.state.catalog.load_full() else { return };
        let now = self.state.clock.ticks().max(1);
        let last = server.state.passed_at.load(Ordering::Relaxed);
        let due = last == 0 || now.saturating_sub(last) > micros(PASSING);
        if !due || server.state.passed_at.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return;
        }
        let Ok(entries) = mcp::list::entries(list, kind) else { return };
        let offer = catalog.spoken(bridge::spoken(era, server));
        if entries.iter().any(|entry| !offer.lists(kind, &entry.name)) {
            self.begin(server, Why::Need(catalog.looked_at));
        }
    }

    /// Begins a look that nobody waits for.
    pub(crate) fn look_after(&self, server: &Arc<Server>) {
        let before = server.state.catalog.load().as_ref().map_or(0, |catalog| catalog.looked_at);
        self.begin(server, Why::Need(before));
    }

    fn known(&self, server: &Arc<Server>) -> Known {
        let Some(catalog) = server.state.catalog.load_full() else { return self.begin(server, Why::Need(0)) };
        let age = self.state.clock.ticks().saturating_sub(catalog.looked_at);
        if age < micros(FRESH) {
            return Known::Catalog(catalog);
        }
        let looking = self.begin(server, Why::Need(catalog.looked_at));
        if age < micros(OLDEST) { Known::Catalog(catalog) } else { looking }
    }

    /// Begins a look, unless one is under way, or just was.
    fn begin(&self, server: &Arc<Server>, why: Why) -> Known {
        let mut looks = server.state.looks();
        if let Some(looking) = looks.now.as_ref().filter(|looking| looking.is_under_way()) {
            return Known::Looking(looking.clone());
        }
        match why {
            Why::Told => looks.told = Some(Instant::now()),
            Why::Others => {}
            Why::Need(before) | Why::Missed(before) => {
                let newer = server.state.catalog.load_full().filter(|catalog| catalog.looked_at > before);
                if let Some(catalog) = newer {
                    return Known::Catalog(catalog);
                }
                // Those who come right after a look that failed have their answer.
                let failed_at = server.state.failed_at.load(Ordering::Acquire);
                if let Some(fault) = server.state.fault.load_full()
                    && self.state.clock.ticks().saturating_sub(failed_at) < micros(FAILED)
                {
                    return Known::Failed(fault.again());
                }
            }
        }
        let (sender, seen) = watch::channel(None);
        let looking = Looking { began: Instant::now(), seen };
        looks.now = Some(looking.clone());
        drop(looks);
        tokio::spawn(self.clone().carry_out(Arc::clone(server), why, sender));
        Known::Looking(looking)
    }

    /// One look, from its beginning to the news of it.
    async fn carry_out(self, server: Arc<Server>, why: Why, sender: watch::Sender<Option<Seen>>) {
        let budget = budget(&server);
        let (line, looked_at, taken) = (self.clone(), Arc::clone(&server), Taken::of(&server));
        // On a task of its own: whatever happens to it, those who wait are told.
        let looking = tokio::spawn(async move { timeout(budget, line.look_now(&looked_at)).await });
        let seen = match looking.await {
            Ok(Ok(seen)) => seen.map(Arc::new),
            Ok(Err(_)) => Err(UpstreamFault::Timeout(budget)),
            Err(_) => Err(broken_off()),
        };
        match &seen {
            Ok(catalog) => self.seen(&server, why, catalog),
            Err(fault) => self.unseen(&server, fault),
        }
        if Taken::of(&server) != taken {
            manner::choose_anew(&self.state, &server);
        }
        server.state.looks().now = None;
        sender.send_replace(Some(seen));
    }

    fn seen(&self, server: &Arc<Server>, why: Why, catalog: &Arc<Catalog>) {
        let before = server.state.catalog.swap(Some(Arc::clone(catalog)));
        let came_back = server.state.fault.swap(None).is_some();
        if came_back {
            self.state.journal.system("upstream-up", Some(server.name.to_string()));
        }
        tell_of_left_out(server, before.as_deref(), catalog);
        // Lists were without it until now.
        let known = before.as_deref().filter(|_| !came_back);
        let news = News { server: server.name.clone(), back: known.is_none(), unsaid: !server.state.said(why) };
        aggregate::listen::announce(&self.state, news, Changes::since(known, catalog));
    }

    fn unseen(&self, server: &Arc<Server>, fault: &UpstreamFault) {
        tracing::warn!(server = %server.name, %fault, "the server cannot be looked at");
        server.state.failed_at.store(self.state.clock.ticks(), Ordering::Release);
        if server.state.fault.swap(Some(Arc::new(Unseen::new(fault.clone())))).is_none() {
            self.state.journal.system("upstream-down", Some(format!("{}: {fault}", server.name)));
        }
    }

    async fn look_now(&self, server: &Arc<Server>) -> Result<Catalog, UpstreamFault> {
        let injected =
            crate::inject::credentials(&self.state, server).map_err(|fault| UpstreamFault::Down(fault.to_string()))?;
        let hop = Hop { state: &self.state, server, injected: &injected, limits: self.snapshot.answer_limits() };
        server.state.asked_with.store(injected.pool, Ordering::Relaxed);
        let asked = match server.era {
            Some(EraSettings::Legacy) => Ok(Said::NotAsked),
            Some(EraSettings::Modern | EraSettings::Both) | None => hop.discover().await,
        };
        let legacy = match server.era {
            Some(EraSettings::Modern) => Ok(Said::NotAsked),
            Some(EraSettings::Legacy | EraSettings::Both) | None => {
                let is_beside = asked.as_ref().is_ok_and(Said::speaks);
                let patience = if is_beside { BESIDE } else { Duration::MAX };
                let introducing = timeout(patience, hop.introduce(matches!(asked, Ok(Said::Not(_)))));
                introducing.await.unwrap_or(Err(UpstreamFault::Timeout(patience)))
            }
        };
        let (modern, legacy) = match (asked, legacy) {
            // Its word counts for more than that it did not answer in time: a process may need longer than that to start.
            (Ok(Said::Not(_)) | Err(_), Ok(Said::Other(leg, why))) => (hop.discover_by(leg).await, Ok(Said::Not(why))),
            (modern, Ok(Said::Other(_, why))) => (modern, Ok(Said::Not(why))),
            others => others,
        };
        let speaks = |said: &Result<Said, UpstreamFault>| said.as_ref().ok().map(Said::speaks);
        let (in_legacy, in_modern) = (speaks(&legacy), speaks(&modern));
        let verdict = server.state.verdict.load().after(in_legacy, in_modern, injected.pool, self.state.clock.now());
        let catalog = hop.read_all(modern, legacy, &verdict).await?;
        server.state.verdict.store(Arc::new(verdict));
        Ok(catalog)
    }
}

impl ServerState {
    fn looks(&self) -> MutexGuard<'_, Looks> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the server says itself what a look finds that was begun for this.
    fn said(&self, why: Why) -> bool {
        match why {
            Why::Told => true,
            Why::Others | Why::Missed(_) => false,
            Why::Need(_) => {
                let looks = self.looks();
                looks.due || looks.told.is_some_and(|told| told.elapsed() < SAID)
            }
        }
    }

    /// Whether a look is under way.
    pub(crate) fn is_looked_at(&self) -> bool {
        self.looks().now.as_ref().is_some_and(Looking::is_under_way)
    }
}

impl Hop<'_> {
    /// Asks in the modern era.
    async fn discover(&self) -> Result<Said, UpstreamFault> {
        // A process is asked beside the one that serves: old ones exit on what comes before `initialize`.
        let leg = match &self.server.transport {
            Transport::Http(_) => None,
            Transport::Stdio(_) => Some(self.modern_leg(self.probe()?)),
        };
        self.discover_by(leg).await
    }

    fn modern_leg(&self, pipe: Arc<Pipe>) -> Leg {
        Leg::new(self.server.fingerprint, Revision::V2026_07_28, Way::Pipe(pipe), true)
    }

    /// The same of a process that runs already.
    async fn discover_by(&self, leg: Option<Leg>) -> Result<Said, UpstreamFault> {
        let text =
            format!(r#"{{"jsonrpc":"2.0","id":0,"method":"server/discover","params":{{"_meta":{}}}}}"#, *OWN_META);
        let question = one(Bytes::from(text), &self.limits)?;
        let asked = timeout(PROBE, self.ask_again(leg.as_ref(), &question)).await;
        let fault = match asked {
            Ok(Ok(answer)) => {
                let speaks = answer
                    .outcome_member(&["supportedVersions"])
                    .and_then(|member| member.value().ok())
                    .is_some_and(|versions| has_modern(&versions));
                let why = || match answer.error_code() {
                    Some(code) => format!("`server/discover` was answered with error {code}: {}", said(&answer)),
                    None => "`server/discover` was answered without a modern version that is known here".to_owned(),
                };
                return Ok(if speaks { Said::Speaks(leg, answer) } else { Said::Not(why()) });
            }
            Ok(Err(fault)) => fault,
            Err(_) => UpstreamFault::Timeout(PROBE),
        };
        // SPEC: silence means legacy on a pipe, and an outage on HTTP.
        match (&leg, &fault) {
            (Some(_), _) | (None, UpstreamFault::Protocol(_)) => Ok(Said::Not(format!("`server/discover`: {fault}"))),
            (None, _) => Err(fault),
        }
    }

    /// Asks, and asks once more where the server refuses the version and names it as one that it speaks.
    async fn ask_again(&self, leg: Option<&Leg>, question: &Message) -> Result<Message, UpstreamFault> {
        let answer = self.ask(leg, question).await?;
        if names_modern(&answer) { self.ask(leg, question).await } else { Ok(answer) }
    }

    /// Asks in the legacy era.
    async fn introduce(&self, is_old: bool) -> Result<Said, UpstreamFault> {
        let introduction = one(Bytes::from_static(OWN_INTRODUCTION.as_bytes()), &self.limits)?;
        let pipe = match &self.server.transport {
            Transport::Http(_) if self.server.may_last() => None,
            // A process is asked beside the one that serves.
            Transport::Http(_) | Transport::Stdio(_) => Some(self.start(None).await?),
        };
        let lasts = &self.server.state.lasts;
        match self.open(&introduction, pipe.clone()).await {
            Ok((leg, answer)) => {
                lasts.store(false, Ordering::Release);
                Ok(Said::Speaks(Some(leg), answer))
            }
            Err(UpstreamFault::Strange { why, is_modern: true }) => {
                Ok(Said::Other(pipe.map(|pipe| self.modern_leg(pipe)), why))
            }
            // SPEC: a server that refuses a POST of `initialize` may be one of 2024-11-05, which GET shows.
            Err(first @ (UpstreamFault::Protocol(_) | UpstreamFault::Strange { .. }))
                if is_old && self.server.may_last() =>
            {
                match timeout(PROBE, self.open(&introduction, Some(self.start(None).await?))).await {
                    Ok(Ok((leg, answer))) => {
                        lasts.store(true, Ordering::Release);
                        Ok(Said::Speaks(Some(leg), answer))
                    }
                    // It speaks that transport, and what it says there is what operator and callers have to read.
                    Ok(Err(fault @ UpstreamFault::Endpoint(_))) => {
                        lasts.store(true, Ordering::Release);
                        Err(fault)
                    }
                    Ok(Err(fault)) => {
                        tracing::debug!(server = %self.server.name, %fault, "the server speaks no transport of 2024-11-05 either");
                        Ok(Said::refused(&first))
                    }
                    Err(_) => Ok(Said::refused(&first)),
                }
            }
            // Of a server that is said to speak the older transport the operator should read what its stream lacks.
            Err(fault @ (UpstreamFault::Protocol(_) | UpstreamFault::Strange { .. })) if !self.server.lasts() => {
                Ok(Said::refused(&fault))
            }
            Err(fault) => Err(fault),
        }
    }
}
