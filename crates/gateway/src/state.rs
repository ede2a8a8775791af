//! What outlives a reload: sessions, counters, the log, the vault, connections.

use crate::{
    absent::Absences,
    aggregate::listen::News,
    authenticate::Caller,
    bridge::downward::{Legs, Parked},
    census::Census,
    clock::Clock,
    forward::Exchange,
    journal::Journal,
    mailbox::Mailboxes,
    origin::Origin,
    own,
    pipeline::Line,
    rim::{Bodies, Tally},
    server::{Server, Transport},
    session::{Leg, Sessions, Way},
    snapshot::Snapshot,
    stop::{Stage, Stop},
    task::Tasks,
    upstream::{
        UpstreamFault,
        exchange::Hop,
        pipe::{Backlogs, Pipe},
    },
};
use arc_swap::ArcSwap;
use egress::Egress;
use identity::Principal;
use mcp::Revision;
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize},
    },
};
use tokio::sync::{Notify, broadcast, watch};
use vault::Vault;
use vocab::{PrincipalId, ServerName, TenantId};

/// News of servers that wait for a stream. One that is slower misses some, and its client lists again later.
const NEWS: usize = 64;

/// What outlives a reload.
pub struct State {
    /// The tenant.
    pub tenant: TenantId,
    /// What is configured now.
    pub snapshot: ArcSwap<Snapshot>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The log.
    pub journal: Arc<Journal>,
    /// Credentials.
    pub vault: Arc<Vault>,
    /// Outbound connections.
    pub egress: Arc<Egress>,
    /// Legacy sessions.
    pub sessions: Sessions,
    /// Clients of the transport of 2024-11-05.
    pub(crate) mailboxes: Mailboxes,
    /// Child processes.
    pub children: crate::upstream::child::Room,
    /// Wakes whoever waits for the gateway to stop.
    pub stopping: watch::Sender<bool>,
    /// The drain is over: what still runs is cut.
    pub cut: AtomicBool,
    /// Processes of modern servers by server and principal, and by server those that everybody shares.
    pub(crate) pipes: Mutex<HashMap<Kept, Arc<Pipe>>>,
    /// Sessions of ours with legacy servers, for modern clients.
    pub(crate) legs: Legs,
    /// Calls of modern clients whose server waits for an answer of theirs.
    pub(crate) parked: Parked,
    /// Whose tasks are whose.
    pub(crate) tasks: Tasks,
    /// Servers whose lists changed unsaid, for the streams of the aggregate.
    pub(crate) news: broadcast::Sender<News>,
    /// Streams and tasks, counted.
    pub census: Census,
    /// Calls under way.
    pub under_way: AtomicUsize,
    /// Those of them that nobody waits for.
    pub(crate) absences: Arc<Absences>,
    /// What of bodies has arrived, and waits for its rest.
    pub(crate) bodies: Arc<Bodies>,
    /// What servers said that lasting connections carry, and clients of calls have not read.
    pub(crate) backlogs: Arc<Backlogs>,
    /// What was ended because of the other end.
    pub(crate) tally: Arc<Tally>,
    /// Wakes the drain when a call ends.
    pub ended: Notify,
}

/// What the binary hands in.
pub struct Parts {
    /// What is configured.
    pub snapshot: Snapshot,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The log.
    pub log: Arc<audit::Log>,
    /// Credentials.
    pub vault: Arc<Vault>,
    /// Outbound connections.
    pub egress: Arc<Egress>,
    /// Where server processes run.
    pub children: crate::upstream::child::Room,
}

impl State {
    /// A gateway that has not served anything yet.
    pub fn new(parts: Parts) -> Self {
        Self {
            tenant: parts.snapshot.settings.tenant.clone(),
            snapshot: ArcSwap::from_pointee(parts.snapshot),
            journal: Arc::new(Journal::new(parts.log, Arc::clone(&parts.clock))),
            clock: parts.clock,
            vault: parts.vault,
            egress: parts.egress,
            sessions: Sessions::new(),
            mailboxes: Mailboxes::default(),
            children: parts.children,
            stopping: watch::channel(false).0,
            cut: AtomicBool::new(false),
            pipes: Mutex::default(),
            legs: Legs::default(),
            parked: Parked::new(),
            tasks: Tasks::default(),
            news: broadcast::channel(NEWS).0,
            census: Census::default(),
            under_way: AtomicUsize::new(0),
            absences: Arc::default(),
            bodies: Arc::default(),
            backlogs: Arc::default(),
            tally: Arc::default(),
            ended: Notify::new(),
        }
    }

    /// How many calls of modern clients wait, on legacy servers, for an answer of their client.
    pub fn parked_count(&self) -> usize {
        self.parked.count()
    }

    /// How many clients of the transport of 2024-11-05 have their stream open.
    pub fn mailbox_count(&self) -> usize {
        self.mailboxes.count()
    }

    /// How many sessions with legacy servers are kept for modern clients.
    pub fn leg_count(&self) -> usize {
        self.legs.count()
    }

    /// The line as it is configured at this moment.
    pub fn line(self: &Arc<Self>) -> Line {
        Line { snapshot: self.snapshot.load_full(), state: Arc::clone(self) }
    }

    /// Swaps what is configured. Calls in flight keep the snapshot they began with; streams look again.
    pub fn swap(self: &Arc<Self>, snapshot: Snapshot) {
        let before = self.snapshot.swap(Arc::new(snapshot));
        let line = self.line();
        for server in line.servers() {
            let known = before.servers.get(&server.name).filter(|known| Arc::ptr_eq(&known.state, &server.state));
            let is_other = |known: &Arc<Server>| known.credentials != server.credentials || known.era != server.era;
            if known.is_some_and(is_other) && server.state.catalog.load().is_some() {
                // Others may be offered something else, and another era may.
                line.look_with_others(server);
            }
            // Whoever listens to all servers may hear this one from now on.
            let _ = self.news.send(News { server: server.name.clone(), back: false, unsaid: false });
        }
    }
}

/// What a process is kept for: a server as it is configured, and a principal, or everybody.
type Kept = (ServerName, u64, Option<PrincipalId>);

impl State {
    /// The one process of a shared server.
    pub(crate) async fn shared_pipe(&self, hop: &Hop<'_>) -> Result<Arc<Pipe>, UpstreamFault> {
        hop.in_a_moment(|| self.pipe_of(hop, None)).await
    }

    /// The process that serves a principal in the modern era: processes are never shared between principals unless
    /// the operator says so.
    pub(crate) async fn modern_pipe(
        &self,
        hop: &Hop<'_>,
        principal: &PrincipalId,
        shared: bool,
    ) -> Result<Arc<Pipe>, UpstreamFault> {
        let holder = (!shared).then_some(principal);
        hop.in_a_moment(|| self.pipe_of(hop, holder)).await
    }

    /// The process that is kept for `holder`, or for everybody.
    fn pipe_of(&self, hop: &Hop<'_>, holder: Option<&PrincipalId>) -> Result<Arc<Pipe>, UpstreamFault> {
        let key = (hop.server.name.clone(), hop.server.fingerprint, holder.cloned());
        let mut pipes = self.pipes.lock().unwrap_or_else(PoisonError::into_inner);
        pipes.retain(|_, pipe| pipe.is_alive());
        if let Some(pipe) = pipes.get(&key).filter(|pipe| hop.fits(pipe)) {
            return Ok(Arc::clone(pipe));
        }
        let pipe = hop.start_now(holder)?;
        pipes.insert(key, Arc::clone(&pipe));
        Ok(pipe)
    }

    /// How a modern call of the gateway's own reaches a server: a process, or nothing for HTTP.
    pub(crate) async fn modern_leg(
        &self,
        hop: &Hop<'_>,
        principal: &PrincipalId,
    ) -> Result<Option<Arc<Leg>>, UpstreamFault> {
        let Transport::Stdio(program) = &hop.server.transport else { return Ok(None) };
        let pipe = self.modern_pipe(hop, principal, program.shared).await?;
        let fingerprint = hop.server.fingerprint;
        Ok(Some(Arc::new(Leg::new(fingerprint, Revision::V2026_07_28, Way::Pipe(pipe), true))))
    }
}

/// What a stream is open for.
#[derive(Clone, Copy)]
pub(crate) enum Lasts {
    /// As long as its client listens.
    AsListened,
    /// For the answer to a call, in whose course this one may ask.
    ForAnswer(Option<Origin>),
}

impl Line {
    /// Whether the owner of an open stream may still have it: the credential holds, the agent is enabled, something on the
    /// server can be seen. Who listens needs the server to be there; a call goes on without it to its end, unless its
    /// client is being asked: the answer would find no way there.
    pub(crate) fn still_allowed(&self, exchange: &mut Exchange, stream: Lasts) -> Result<(), Stop> {
        let known = &exchange.caller.principal;
        let principal = self.snapshot.identity.renew(known, self.state.clock.now()).map_err(|fault| {
            Stop::refused(Stage::Authenticate, "revoked", mcp::error::INVALID_REQUEST, fault.public_message())
        })?;
        // Roles, groups and environments may be others now.
        let renewed = (principal.generation() != known.generation()).then(|| Caller::of(principal));
        // The very rules by which the caller was let in, for the very same caller, let it in again.
        let Some(caller) = self.other_holder(exchange).or(renewed) else { return Ok(()) };
        if let Some(one) = exchange.target.one() {
            let goes_on = || match stream {
                Lasts::AsListened => false,
                Lasts::ForAnswer(asker) => {
                    let session = exchange.target.session().or(exchange.opened.as_ref());
                    !session.is_some_and(|session| session.is_asked_over(&one.server.name, asker))
                }
            };
            let now = self.snapshot.servers.get(&one.server.name);
            let server = now.or_else(|| goes_on().then_some(&one.server));
            if !server.is_some_and(|server| self.snapshot.policies.reaches(&caller.subject, server.root())) {
                return Err(own::withdrawn().decided(&self.snapshot.policies, Vec::new()));
            }
        }
        // INVARIANT: an exchange has a caller whom the configuration of its generation lets in. Whoever is not let in does not
        // get here, and is refused as often as is asked.
        exchange.caller = caller;
        Ok(())
    }
}

impl Line {
    /// A listener has the rights of the token that its session was last used with: tokens are renewed, and the new one may
    /// come with other groups. `None`: it is the one that is known.
    fn other_holder(&self, exchange: &Exchange) -> Option<Caller> {
        let listener = exchange.target.session().filter(|_| exchange.call.message().is_none());
        let holder = listener?.holder();
        if holder.credential_id() == exchange.caller.principal.credential_id() {
            return None;
        }
        self.snapshot.identity.renew(&holder, self.state.clock.now()).ok().map(Caller::of)
    }

    /// Who this caller is now, and the server, if it may still hear of it. For streams that last.
    pub(crate) fn may_hear(&self, known: &Principal, server: &ServerName) -> Option<(Caller, &Arc<Server>)> {
        let principal = self.snapshot.identity.renew(known, self.state.clock.now()).ok()?;
        let caller = Caller::of(principal);
        let server = self.snapshot.servers.get(server)?;
        self.snapshot.policies.reaches(&caller.subject, server.root()).then_some((caller, server))
    }

    /// The configured servers.
    pub fn servers(&self) -> impl Iterator<Item = &Arc<Server>> {
        self.snapshot.servers.values()
    }
}
