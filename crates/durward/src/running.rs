//! A running gateway: what is built, in the order it is built, and how it stops.

use crate::{
    assemble, certificate,
    config::{self, Loaded, Named, Report, Settings, diff::Difference},
    control::{self, Control},
    directory::Directory,
    retention,
    telemetry::{Collector, Telemetry},
    watch::Watched,
};
use admin::Plane;
use anyhow::{Context, Result, anyhow};
use audit::Log;
use egress::Egress;
use gateway::{
    Room,
    clock::{Clock, SystemClock},
    limit::{Allowance, LimitSettings, Limits, Rate},
    observe::Observer,
    rim::{Certificates, Rim},
    settings::{Listener, TransportSettings},
    snapshot::Snapshot,
    state::{Parts, State},
};
use identity::{JwksCache, Reread};
use policy::Policies;
use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};
use vocab::{IssuerName, ServerName};

/// How long calls in flight may take to end when the gateway stops.
const DRAIN: Duration = Duration::from_secs(20);

/// How long servers may take to hear that sessions are over, and clients that streams are.
const FAREWELL: Duration = Duration::from_secs(2);
/// How often it is looked whether clients have heard it.
const LOOK: Duration = Duration::from_millis(5);
/// How often it is looked for what is over.
const SWEEP: Duration = Duration::from_secs(30);

/// A running gateway.
pub(crate) struct Running {
    pub(crate) state: Arc<State>,
    pub(crate) directory: Arc<Directory>,
    /// The first address of the network that is listened on.
    pub(crate) address: Option<SocketAddr>,
    pub(crate) observer: Arc<Observer>,
    configured: Arc<Configured>,
    control: Control,
    rim: Rim,
}

/// What is configured now, and how it is read again.
struct Configured {
    state: Arc<State>,
    directory: Arc<Directory>,
    observer: Arc<Observer>,
    telemetry: Mutex<Option<Telemetry>>,
    /// What TLS clients are shown, if there are any.
    certificates: Option<Arc<Certificates>>,
    jwks: Arc<JwksCache>,
    file: Option<PathBuf>,
    /// The data directory that was named beside the file, if one was: what the file says of it counts for nothing.
    data: Option<PathBuf>,
    /// What the gateway was started with: some of it stays in force until it ends.
    started: Settings,
    settings: Mutex<Settings>,
    /// What was said of them.
    report: Mutex<Report>,
    /// What a configuration names that was refused since: whoever mends that means it to be read again.
    refused: Mutex<Named>,
    /// Why the certificate that is configured cannot be used, as it was told last.
    unfit: Mutex<Option<String>>,
}

impl Running {
    /// Builds and starts the gateway: directory, log, connections, snapshot, listeners. `data` goes before what the
    /// file says.
    pub(crate) async fn start(loaded: Loaded, file: Option<PathBuf>, data: Option<PathBuf>) -> Result<Self> {
        let Loaded { mut settings, policies, report } = loaded;
        if let Some(data) = &data {
            settings.data.clone_from(data);
        }
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let now = clock.now();
        let directory = Arc::new(Directory::open(&settings, now).await?);
        let log = Arc::new(directory.log(now)?);
        let (state, jwks) = plane(&settings, policies, &directory, log, clock)?;
        state.census.join();
        state.journal.system("started", Some(format!("version {}", env!("CARGO_PKG_VERSION"))));
        retention::apply(&state, &settings)?;
        for (issuer, keys) in state.snapshot.load().identity.reread(now) {
            tracing::warn!("{}", told_of_keys(&issuer, keys).text);
        }
        let observer = Observer::start(Arc::clone(&state), crate::talk::calls);
        let telemetry = Mutex::new(export(collector(&settings, &state)?, &observer, &state));
        let shown = settings.tls.as_ref().map(certificate::read).transpose()?;
        let certificates = shown.map(|shown| Arc::new(Certificates::new(shown)));
        let rim = Rim::start(&state, &assemble::listening(&settings, certificates.clone()))?;
        let address = rim.address();
        let manage = settings.admin.listen;
        let configured = Arc::new(Configured {
            state: Arc::clone(&state),
            directory: Arc::clone(&directory),
            observer: Arc::clone(&observer),
            telemetry,
            certificates,
            jwks,
            file,
            data,
            started: settings.clone(),
            settings: Mutex::new(settings),
            report: Mutex::new(report),
            refused: Mutex::default(),
            unfit: Mutex::default(),
        });
        let control = configured.manage(manage, rim.places()).await?;
        look_around(&state);
        tokio::spawn(sweep(Arc::clone(&state)));
        tokio::spawn(retention::watch(Arc::clone(&state)));
        Ok(Self { state, directory, address, observer, configured, control, rim })
    }

    /// Where management, health and metrics are.
    pub(crate) const fn management(&self) -> SocketAddr {
        self.control.address
    }

    /// Where agents connect, as they would dial it.
    pub(crate) fn places(&self) -> impl Iterator<Item = String> {
        let scheme = if self.configured.certificates.is_some() { "https" } else { "http" };
        self.rim.places().iter().map(move |place| match place {
            Listener::Network(address) => format!("{scheme}://{address}/mcp  (or /mcp/SERVER)"),
            Listener::Unix { path, .. } => format!("unix:{}", path.display()),
        })
    }

    /// The settings in force.
    pub(crate) fn settings(&self) -> Settings {
        self.configured.settings()
    }

    /// Reads the configuration again. A bad one changes nothing; calls in flight keep what they began with.
    pub(crate) fn reload(&self) -> Reloaded {
        self.configured.reload()
    }

    /// Writes down that a reload was refused.
    pub(crate) fn record_refused(&self, why: String) {
        self.configured.record_refused(why);
    }

    /// Where a change of what the configuration names shows.
    pub(crate) fn watched(&self) -> Watched {
        self.configured.watched()
    }

    /// Stops: takes nothing new, lets calls in flight end, stops processes, closes the log.
    pub(crate) async fn stop(self) -> Result<()> {
        self.state.stopping.send_replace(true);
        if !self.drained(DRAIN).await {
            let left = self.state.under_way.load(Ordering::Acquire);
            tracing::warn!(left, "calls were still under way when the time to end was over");
        }
        self.streams_ended().await;
        self.state.end_parked();
        self.drained(FAREWELL).await;
        self.state.end_sessions(|_| true);
        self.state.end_links();
        // Servers that do not answer let their sessions expire.
        self.drained(FAREWELL).await;
        self.state.children.close().await;
        self.state.cut.store(true, Ordering::Release);
        let rim = self.rim;
        tokio::task::spawn_blocking(move || rim.join()).await?;
        self.observer.stop().await;
        self.control.stop().await;
        let telemetry = lock(&self.configured.telemetry).take();
        if let Some(telemetry) = telemetry {
            telemetry.finish().await;
        }
        self.state.journal.record_unheard();
        self.state.journal.system("stopped", None);
        let written = self.state.journal.log().flush_at_last().await;
        if let Some(texts) = self.state.journal.log().texts() {
            texts.flush();
        }
        written.context("the end of the log is lost: it could not be written, and the gateway ends")
    }
}

/// The data plane over an open directory, before it serves anybody.
pub(crate) fn plane(
    settings: &Settings,
    policies: Policies,
    directory: &Directory,
    log: Arc<Log>,
    clock: Arc<dyn Clock>,
) -> Result<(Arc<State>, Arc<JwksCache>)> {
    let egress = Arc::new(Egress::new(egress::Settings::default()).context("TLS cannot be set up")?);
    let jwks = Arc::new(JwksCache::new(Arc::clone(&egress)));
    let snapshot = assemble::snapshot(settings, policies, &directory.tenant, &directory.registry, &jwks, None)?;
    let state = State::new(Parts {
        snapshot,
        clock,
        log,
        vault: Arc::clone(&directory.vault),
        egress,
        children: Room::new(settings.bounds.children, settings.bounds.children_per_principal, child_environment()),
    });
    Ok((Arc::new(state), jwks))
}

impl Configured {
    fn settings(&self) -> Settings {
        lock(&self.settings).clone()
    }

    /// Starts the management of a gateway with these settings.
    async fn manage(self: &Arc<Self>, listen: SocketAddr, taken: &[Listener]) -> Result<Control> {
        let (again, named, measured) = (Arc::clone(self), Arc::clone(self), Arc::clone(&self.observer));
        let plane = Plane {
            state: Arc::clone(&self.state),
            reload: Box::new(move || {
                let reloaded = again.reload();
                if let Err(fault) = &reloaded.outcome {
                    again.record_refused(fault.brief());
                }
                reloaded.answer()
            }),
            metrics: Box::new(move || measured.metrics_text()),
            limits: management_limits()?,
        };
        let agents = Box::new(move || assemble::agents(&named.settings()));
        let (log, clock) = (Arc::clone(self.state.journal.log()), Arc::clone(&self.state.clock));
        let desk = control::desk(&self.directory, log, clock, agents, Some(plane))?;
        Control::start(desk, listen, taken, &self.directory).await
    }

    fn reload(&self) -> Reloaded {
        let taken = self.take_over();
        let refused = self.file.as_deref().filter(|_| taken.is_err());
        *lock(&self.refused) = refused.map(Named::at).unwrap_or_default();
        let fault = match taken {
            Ok(News { changes, still }) => return Reloaded { outcome: Ok(changes), still },
            Err(fault) => fault,
        };
        // SECURITY: a key that was taken out of its file is out, whatever else is wrong.
        let mut news = News::default();
        news.add_keys(self.state.snapshot.load().identity.reread(self.state.clock.now()));
        for told in news.changes {
            tracing::warn!("{told}");
            self.state.journal.system("reloaded", Some(told));
        }
        self.state.sweep();
        Reloaded { outcome: Err(fault), still: news.still }
    }

    /// Writes down that what was to be taken over was not.
    fn record_refused(&self, why: String) {
        self.state.journal.system("reload_refused", Some(why));
    }

    /// Goes over to the configuration as it is now.
    fn take_over(&self) -> Result<News, Reload> {
        let before = self.settings();
        let mut loaded = match &self.file {
            Some(file) => config::load_again(file, &before.issuers),
            None => config::without_file(before.data.clone()),
        }
        .map_err(Reload::Faults)?;
        if let Some(data) = &self.data {
            loaded.settings.data.clone_from(data);
        }
        loaded.look_for_secrets();
        let Loaded { settings, policies, report } = loaded;
        let current = self.state.snapshot.load_full();
        let (registry, tenant) = (&self.directory.registry, &self.state.tenant);
        let snapshot = assemble::snapshot(&settings, policies, tenant, registry, &self.jwks, Some(&current))
            .map_err(Reload::Other)?;
        let collector = collector(&settings, &self.state).map_err(Reload::Other)?;
        if before.log != settings.log {
            retention::apply(&self.state, &settings).map_err(Reload::Other)?;
        }
        // INVARIANT: from here on nothing fails: all of it is in force, or what was before.
        if before.telemetry != settings.telemetry {
            // The one it replaces sends what it has and ends.
            *lock(&self.telemetry) = export(collector, &self.observer, &self.state);
        }
        let news = self.put_in_force(&before, settings, snapshot, report);
        if !news.changes.is_empty() {
            self.state.journal.system("reloaded", Some(news.changes.join("\n")));
            look_around(&self.state);
        }
        Ok(news)
    }

    /// Goes over to what was read. What is different now, and what is not.
    fn put_in_force(&self, before: &Settings, settings: Settings, snapshot: Snapshot, report: Report) -> News {
        let current = self.state.snapshot.load_full();
        let mut news = News::default();
        let Difference { changes, waits } = Difference::of(&self.started, before, &settings);
        news.changes.extend(changes);
        news.still.extend(waits);
        news.changes.extend(other_roots(&current, &snapshot));
        news.changes.extend(config::diff::policies(&current.policies, &snapshot.policies));
        if let Some(line) = self.show(&settings) {
            news.add(line);
        }
        news.add_keys(snapshot.identity.reread(self.state.clock.now()));
        self.state.swap(snapshot);
        // What the change put an end to ends now.
        self.state.sweep();
        if before.danger_allow_anonymous != settings.danger_allow_anonymous {
            tell_of_anonymous(&settings);
        }
        news.changes.extend(report.warnings_beyond(&lock(&self.report)));
        *lock(&self.report) = report;
        *lock(&self.settings) = settings;
        news
    }

    /// Shows clients the certificate that is configured now, if it fits. What there is to say of it.
    fn show(&self, settings: &Settings) -> Option<Line> {
        let read = settings.tls.as_ref().map(certificate::read).transpose();
        let unfit = read.as_ref().err().map(|unfit| assemble::chain(unfit));
        let told = std::mem::replace(&mut *lock(&self.unfit), unfit.clone());
        let text = match (read, &self.certificates) {
            (Err(unfit), Some(_)) => format!("tls: the certificate of before is shown on: {}", assemble::chain(&unfit)),
            (Err(unfit), None) => format!("tls: nothing would start with it: {}", assemble::chain(&unfit)),
            (Ok(Some(shown)), Some(certificates)) if certificates.show(&shown) => {
                format!("tls: another certificate is shown, SHA-256 {}", shown.fingerprint())
            }
            // Without a certificate to replace it counts at the next start.
            (Ok(Some(_)), Some(_) | None) if told.is_some() => "tls: certificate and key can be used".to_owned(),
            (Ok(_), _) => return None,
        };
        Some(Line { is_new: unfit.is_none() || unfit != told, text })
    }

    fn watched(&self) -> Watched {
        let named = [Named::of(&self.settings()), lock(&self.refused).clone()];
        let files = || self.file.iter().chain(named.iter().flat_map(|named| &named.files));
        let policies = || named.iter().map(|named| &named.policies);
        // Where there is not room for all, what may bring new files comes before the links of those that are there.
        let own = files().filter_map(|file| config::Look::at(file));
        let patterns = policies()
            .flat_map(|policies| policies.patterns.iter().flat_map(|glob| config::looks(&policies.base, glob)));
        let links = files().chain(policies().flat_map(|policies| &policies.files));
        Watched::of(own.chain(patterns).chain(links.flat_map(|file| config::Look::links_to(file))))
    }
}

/// Where spans and metrics go, if they go anywhere.
fn collector(settings: &Settings, state: &State) -> Result<Option<Collector>> {
    settings.telemetry.otlp.as_ref().map(|otlp| Collector::new(&otlp.endpoint, Arc::clone(&state.egress))).transpose()
}

/// Starts or ends the export of spans and metrics.
fn export(collector: Option<Collector>, observer: &Arc<Observer>, state: &Arc<State>) -> Option<Telemetry> {
    let Some(collector) = collector else {
        observer.export(None);
        return None;
    };
    Some(Telemetry::start(collector, observer, state))
}

/// Servers whose file of roots holds others than before. One of another name is a difference of the configuration.
fn other_roots(before: &Snapshot, after: &Snapshot) -> Vec<String> {
    fn roots<'a>(snapshot: &'a Snapshot, name: &ServerName) -> Option<&'a [u8]> {
        match &snapshot.settings.servers.get(name)?.transport {
            TransportSettings::Http { ca, .. } => ca.as_deref(),
            TransportSettings::Stdio { .. } => None,
        }
    }
    let names = after.settings.servers.keys();
    let others = names.filter(|name| match (roots(before, name), roots(after, name)) {
        (Some(before), Some(after)) => before != after,
        (_, None) | (None, _) => false,
    });
    others.map(|name| format!("servers.{name}.ca: the file holds other roots")).collect()
}

fn told_of_keys(issuer: &IssuerName, keys: Reread) -> Line {
    let is_new = !matches!(keys, Reread::StillUnusable(_));
    let text = match keys {
        Reread::Changed => format!("issuers: other keys of {issuer} are in force"),
        Reread::Usable => format!("issuers: the file of keys of {issuer} is taken again"),
        Reread::Unusable(why) | Reread::StillUnusable(why) => {
            format!("issuers: the file of keys of {issuer} is not taken: {why}")
        }
    };
    Line { is_new, text }
}

/// Says aloud for whom calls without a credential are taken.
pub(crate) fn tell_of_anonymous(settings: &Settings) {
    if let Some(agent) = &settings.danger_allow_anonymous {
        tracing::warn!(%agent, "danger_allow_anonymous: whoever reaches this address calls as this agent");
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Running {
    /// Waits until nothing is under way, or for so long.
    async fn drained(&self, time: Duration) -> bool {
        let waiting = async {
            while self.state.under_way.load(Ordering::Acquire) > 0 {
                let _ = tokio::time::timeout(Duration::from_millis(100), self.state.ended.notified()).await;
            }
        };
        tokio::time::timeout(time, waiting).await.is_ok()
    }

    /// Waits until whoever listens has heard that it is over, but not long.
    async fn streams_ended(&self) {
        let waiting = async {
            while self.state.census.streams() > 0 {
                tokio::time::sleep(LOOK).await;
            }
        };
        let _ = tokio::time::timeout(FAREWELL, waiting).await;
    }
}

/// What came of reading the configuration again.
pub(crate) struct Reloaded {
    /// What is different now, or why nothing is.
    pub(crate) outcome: Result<Vec<String>, Reload>,
    /// What cannot be used for the reason that was told before, or waits for the next start: said to whoever asks, and to
    /// nobody else.
    pub(crate) still: Vec<String>,
}

/// Why a reload changed nothing.
pub(crate) enum Reload {
    /// The configuration has faults.
    Faults(Report),
    /// It cannot be put to work.
    Other(anyhow::Error),
}

impl Reloaded {
    /// For management.
    fn answer(self) -> Result<admin::Reloaded, String> {
        let Self { outcome, still } = self;
        match outcome {
            Ok(changes) => Ok(admin::Reloaded { changes, still }),
            Err(fault) => Err(std::iter::once(fault.to_string()).chain(still).collect::<Vec<_>>().join("\n")),
        }
    }
}

/// What there is to say after a look at everything that is configured.
#[derive(Default)]
struct News {
    changes: Vec<String>,
    still: Vec<String>,
}

/// One line of it. A state is news once for each cause.
struct Line {
    is_new: bool,
    text: String,
}

impl News {
    fn add(&mut self, line: Line) {
        if line.is_new { self.changes.push(line.text) } else { self.still.push(line.text) }
    }

    fn add_keys(&mut self, reread: Vec<(IssuerName, Reread)>) {
        for (issuer, keys) in reread {
            self.add(told_of_keys(&issuer, keys));
        }
    }
}

impl Reload {
    /// The first cause and how many more there are, for the record: what a configuration says can be long, its record is kept.
    pub(crate) fn brief(&self) -> String {
        const LONGEST: usize = 500;
        let why = match self {
            Self::Faults(report) => report.first().unwrap_or_default(),
            Self::Other(fault) => format!("{fault:#}"),
        };
        let end = why.floor_char_boundary(LONGEST);
        match why.get(..end) {
            Some(begins) if end < why.len() => format!("{begins}…"),
            Some(_) | None => why,
        }
    }
}

impl std::fmt::Display for Reload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Faults(report) => write!(f, "the configuration has faults:\n{report}"),
            Self::Other(fault) => write!(f, "{fault:#}"),
        }
    }
}

/// How often a management key may ask, and an address may fail to prove one.
pub(crate) fn management_limits() -> Result<Limits> {
    let settings = LimitSettings {
        rules: Vec::new(),
        attempts: Allowance { rate: Rate { count: 20, per: Duration::from_secs(1) }, burst: 100 },
        failures: Allowance { rate: Rate { count: 10, per: Duration::from_mins(1) }, burst: 10 },
    };
    Limits::new(&settings, None).map_err(|faults| anyhow!("management limits: {faults:?}"))
}

/// A look at every server, so that `server list` and the first call know them.
fn look_around(state: &Arc<State>) {
    let line = state.line();
    for server in line.servers() {
        let (state, server) = (Arc::clone(state), Arc::clone(server));
        tokio::spawn(async move { state.line().look(&server).await });
    }
}

/// Ends what is over: idle sessions and processes, sessions whose key is gone, legs to yesterday's targets.
async fn sweep(state: Arc<State>) {
    let mut turns = tokio::time::interval(SWEEP);
    loop {
        turns.tick().await;
        state.sweep();
    }
}

/// What server processes inherit: where programs are, and whose they are. Nothing else.
#[expect(clippy::disallowed_methods, reason = "the binary reads the environment")]
fn child_environment() -> Vec<(std::ffi::OsString, std::ffi::OsString)> {
    ["PATH", "HOME", "LANG", "TMPDIR"]
        .into_iter()
        .filter_map(|name| std::env::var_os(name).map(|value| (name.into(), value)))
        .collect()
}
