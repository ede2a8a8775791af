//! A running gateway: what is built, in the order it is built, and how it stops.

use crate::{
    assemble, certificate,
    config::{self, Loaded, Report, Settings},
    control::{self, Control},
    directory::Directory,
    retention,
    telemetry::Telemetry,
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
    settings::Listener,
    state::{Parts, State},
};
use identity::JwksCache;
use policy::Policies;
use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

/// How long calls in flight may take to end when the gateway stops.
const DRAIN: Duration = Duration::from_secs(20);

/// How long servers may take to hear that sessions are over.
const FAREWELL: Duration = Duration::from_secs(2);
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
    settings: Mutex<Settings>,
}

impl Running {
    /// Builds and starts the gateway: directory, log, connections, snapshot, listeners. `data` goes before what the
    /// file says.
    pub(crate) async fn start(loaded: Loaded, file: Option<PathBuf>, data: Option<PathBuf>) -> Result<Self> {
        let Loaded { mut settings, policies, report: _ } = loaded;
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
        let observer = Observer::start(Arc::clone(&state));
        let telemetry = Mutex::new(export(&settings, &observer, &state)?);
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
            settings: Mutex::new(settings),
        });
        let control = configured.manage(manage).await?;
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
    pub(crate) fn reload(&self) -> Result<Vec<String>, Reload> {
        self.configured.reload()
    }

    /// Files that make up the configuration, whatever they are called, and the folders they are in.
    pub(crate) fn watched(&self) -> (Vec<PathBuf>, Vec<PathBuf>) {
        self.configured.watched()
    }

    /// Stops: takes nothing new, lets calls in flight end, stops processes, closes the log.
    pub(crate) async fn stop(self) -> Result<()> {
        self.state.stopping.send_replace(true);
        if !self.drained(DRAIN).await {
            let left = self.state.under_way.load(Ordering::Acquire);
            tracing::warn!(left, "calls were still under way when the time to end was over");
        }
        self.state.end_sessions(|_| true);
        // Servers that do not answer let their sessions expire.
        self.drained(FAREWELL).await;
        self.state.children.close().await;
        self.state.cut.store(true, Ordering::Release);
        let rim = self.rim;
        tokio::task::spawn_blocking(move || rim.join()).await?;
        self.observer.stop().await;
        self.control.stop().await;
        let telemetry = self.configured.telemetry.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(telemetry) = telemetry {
            telemetry.finish().await;
        }
        self.state.journal.record_unheard();
        self.state.journal.system("stopped", None);
        self.state.journal.log().flush().await.context("the log could not be written to the end")?;
        if let Some(texts) = self.state.journal.log().texts() {
            texts.flush();
        }
        Ok(())
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
        children: Room::new(settings.bounds.children, child_environment()),
    });
    Ok((Arc::new(state), jwks))
}

impl Configured {
    fn settings(&self) -> Settings {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Starts the management of a gateway with these settings.
    async fn manage(self: &Arc<Self>, listen: SocketAddr) -> Result<Control> {
        let (again, named, measured) = (Arc::clone(self), Arc::clone(self), Arc::clone(&self.observer));
        let plane = Plane {
            state: Arc::clone(&self.state),
            reload: Box::new(move || again.reload().map_err(|fault| fault.to_string())),
            metrics: Box::new(move || measured.metrics_text()),
            limits: management_limits()?,
        };
        let agents = Box::new(move || assemble::agents(&named.settings()));
        let (log, clock) = (Arc::clone(self.state.journal.log()), Arc::clone(&self.state.clock));
        let desk = control::desk(&self.directory, log, clock, agents, Some(plane))?;
        Control::start(desk, listen, &self.directory).await
    }

    fn reload(&self) -> Result<Vec<String>, Reload> {
        let before = self.settings();
        let loaded = match &self.file {
            Some(file) => config::load_again(file),
            None => config::without_file(before.data.clone()),
        }
        .map_err(Reload::Faults)?;
        let Loaded { mut settings, policies, report: _ } = loaded;
        if let Some(data) = &self.data {
            settings.data.clone_from(data);
        }
        let current = self.state.snapshot.load_full();
        let (registry, tenant) = (&self.directory.registry, &self.state.tenant);
        let snapshot = assemble::snapshot(&settings, policies, tenant, registry, &self.jwks, Some(&current))
            .map_err(Reload::Other)?;
        let mut changes: Vec<String> =
            config::diff::between(&before, &settings).iter().map(ToString::to_string).collect();
        if snapshot.policies.version() != current.policies.version() {
            changes.push(format!("policies: {} → {}", current.policies.version(), snapshot.policies.version()));
        }
        if before.telemetry != settings.telemetry {
            let telemetry = export(&settings, &self.observer, &self.state).map_err(Reload::Other)?;
            // The one it replaces sends what it has and ends.
            *self.telemetry.lock().unwrap_or_else(PoisonError::into_inner) = telemetry;
        }
        retention::apply(&self.state, &settings).map_err(Reload::Other)?;
        changes.extend(self.show(&settings));
        self.state.swap(snapshot);
        // What the change put an end to ends now.
        self.state.sweep();
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner) = settings;
        if !changes.is_empty() {
            self.state.journal.system("reloaded", Some(changes.join("\n")));
            look_around(&self.state);
        }
        Ok(changes)
    }

    /// Shows clients the certificate that is configured now, if it fits. What there is to say of it.
    fn show(&self, settings: &Settings) -> Option<String> {
        match (settings.tls.as_ref().map(certificate::read)?, &self.certificates) {
            (Ok(shown), Some(certificates)) => certificates
                .show(&shown)
                .then(|| format!("tls: another certificate is shown, SHA-256 {}", shown.fingerprint())),
            (Err(unfit), Some(_)) => {
                Some(format!("tls: the certificate of before is shown on: {}", assemble::chain(&unfit)))
            }
            (Err(unfit), None) => Some(format!("tls: nothing would start with it: {}", assemble::chain(&unfit))),
            // It counts at the next start.
            (Ok(_), None) => None,
        }
    }

    fn watched(&self) -> (Vec<PathBuf>, Vec<PathBuf>) {
        let settings = self.settings();
        let tls = settings.tls.iter().flat_map(|tls| [&tls.certificate, &tls.key]);
        let files: Vec<PathBuf> = self.file.iter().chain(tls).cloned().collect();
        let all = files.iter().chain(&settings.policies.files);
        let folders = all.filter_map(|file| file.parent()).map(|folder| {
            let here = folder.as_os_str().is_empty();
            if here { PathBuf::from(".") } else { folder.to_owned() }
        });
        let mut folders: Vec<PathBuf> = folders.collect();
        folders.sort();
        folders.dedup();
        (files, folders)
    }
}

/// Starts or ends the export of spans and metrics, as configured.
fn export(settings: &Settings, observer: &Arc<Observer>, state: &Arc<State>) -> Result<Option<Telemetry>> {
    let Some(otlp) = &settings.telemetry.otlp else {
        observer.export(None);
        return Ok(None);
    };
    Telemetry::start(otlp, observer, state).map(Some)
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
}

/// Why a reload changed nothing.
pub(crate) enum Reload {
    /// The configuration has faults.
    Faults(Report),
    /// It cannot be put to work.
    Other(anyhow::Error),
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
