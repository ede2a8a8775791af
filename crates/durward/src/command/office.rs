//! Whom a command that manages an installation speaks to: the running gateway over its socket, or, when none runs, the
//! same routes over the data directory, under its lock.

use crate::{
    assemble,
    cli::Shared,
    config::{self, Loaded},
    control,
    directory::{self, Directory, Held},
    running,
    up::DATA,
};
use anyhow::{Context, Result, bail};
use audit::Log;

use admin::Plane;
use gateway::{
    clock::{Clock, SystemClock},
    state::State,
};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Bytes};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use serde_json::Value;
use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::net::UnixStream;

/// The longest a command waits for the gateway.
const PATIENCE: Duration = Duration::from_mins(3);
/// The longest until it answers what it need only look up or write down.
const SHORT: Duration = Duration::from_secs(10);
/// What takes longer: it is as long as servers take, or as the log is.
const LONG: [&str; 4] = ["/api/servers/look", "/api/reload", "/api/vault/", "/api/audit/"];
/// The largest answer.
const ANSWER: usize = 64 << 20;

/// The gateway cannot be reached, or somebody else holds the directory.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unreachable(String);

impl Unreachable {
    pub(crate) fn new(why: &str) -> Self {
        Self(why.to_owned())
    }
}

/// What is wrong was said already.
#[derive(Debug, thiserror::Error)]
#[error("the configuration has faults")]
pub(crate) struct Reported;

/// Where an installation keeps its things, and what its configuration says if it was read.
pub(crate) struct Site {
    pub(crate) data: PathBuf,
    file: Option<PathBuf>,
}

impl Site {
    /// The data directory: the one that is named, that of the configuration, or the usual one.
    pub(crate) fn find(shared: &Shared) -> Result<Self> {
        let file = config::find(shared.config.as_deref());
        let data = match (&shared.data, &file) {
            (Some(data), _) => data.clone(),
            // Serves nobody: a certificate that has run out keeps no operator from what is kept.
            (None, Some(file)) => match config::load_aside(file) {
                Ok(loaded) => loaded.settings.data,
                Err(report) => running_beside(file, report)?,
            },
            (None, None) => PathBuf::from(DATA),
        };
        Ok(Self { data, file })
    }

    /// The configuration, with this data directory.
    pub(crate) fn load(&self) -> Result<Loaded> {
        let mut loaded = match &self.file {
            Some(file) => loaded(config::load_aside(file)),
            None => loaded(config::without_file(self.data.clone())),
        }?;
        loaded.settings.data.clone_from(&self.data);
        Ok(loaded)
    }
}

/// The data directory that a broken configuration names, if a gateway runs there: nobody may be kept from that one.
#[expect(clippy::disallowed_methods, reason = "a command dials its gateway")]
fn running_beside(file: &Path, report: config::Report) -> Result<PathBuf> {
    let data = config::data_of(file);
    if std::os::unix::net::UnixStream::connect(directory::socket_path(&data)).is_ok() {
        return Ok(data);
    }
    let faults = loaded(Err(report)).map(|loaded| loaded.settings.data);
    super::print::say("durward: add --data DIR to reach a running gateway");
    faults
}

/// Says what is wrong with a configuration.
pub(crate) fn loaded(result: Result<Loaded, config::Report>) -> Result<Loaded> {
    result.map_err(|report| {
        super::print::say(report.to_string().trim_end());
        Reported.into()
    })
}

/// Who answers.
pub(crate) enum Office {
    /// The running gateway.
    Running(PathBuf),
    /// Nobody: the directory is held by this process.
    Here(Box<Here>),
}

/// The directory, held while a command works on it.
pub(crate) struct Here {
    router: admin::Router,
    log: Arc<Log>,
    /// The data plane, where servers are looked at.
    state: Option<Arc<State>>,
    _directory: Directory,
}

impl Office {
    /// Whether a gateway answers.
    pub(crate) async fn is_running(site: &Site) -> bool {
        is_answered(&directory::socket_path(&site.data)).await
    }

    /// Finds out who answers. `makes`: the command may make a directory that does not exist yet.
    pub(crate) async fn open(site: &Site, makes: bool) -> Result<Self> {
        let socket = directory::socket_path(&site.data);
        if is_answered(&socket).await {
            return Ok(Self::Running(socket));
        }
        if !makes && !site.data.exists() {
            let data = site.data.display();
            bail!("there is no data directory {data}; `durward up` makes it, and --data DIR names another");
        }
        Self::here(site, false).await
    }

    /// Finds out who can look at servers. Where no gateway runs, a data plane of our own can, that serves nobody.
    pub(crate) async fn open_to_look(site: &Site) -> Result<Self> {
        if Self::is_running(site).await { Self::open(site, false).await } else { Self::here(site, true).await }
    }

    /// Takes the directory. `looks`: with a data plane.
    async fn here(site: &Site, looks: bool) -> Result<Self> {
        let socket = directory::socket_path(&site.data);
        let loaded = site.load()?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let now = clock.now();
        let directory = match Directory::open(&loaded.settings, now).await {
            Ok(directory) => directory,
            Err(fault) if fault.is::<Held>() => {
                let socket = socket.display();
                return Err(Unreachable(format!("{fault}, and does not answer at {socket}")).into());
            }
            Err(fault) => return Err(fault),
        };
        let log = Arc::new(directory.log(now)?);
        let settings = loaded.settings;
        let state = if looks {
            let clock = Arc::clone(&clock);
            Some(running::plane(&settings, loaded.policies, &directory, Arc::clone(&log), clock)?.0)
        } else {
            None
        };
        let plane = match &state {
            Some(state) => Some(Plane {
                state: Arc::clone(state),
                reload: Box::new(|| Err("no gateway runs".to_owned())),
                metrics: Box::new(String::new),
                limits: running::management_limits()?,
            }),
            None => None,
        };
        let agents = Box::new(move || assemble::agents(&settings));
        let desk = control::desk(&directory, Arc::clone(&log), clock, agents, plane)?;
        let router = admin::router(&Arc::new(desk));
        Ok(Self::Here(Box::new(Here { router, log, state, _directory: directory })))
    }

    /// Asks.
    pub(crate) async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer> {
        let body = Full::new(Bytes::from(body.map(Value::to_string).unwrap_or_default()));
        let request = Request::builder().method(method).uri(path).header(header::HOST, "localhost").body(body)?;
        let answered = match self {
            Self::Running(socket) => within(patience(path), socket, request).await,
            Self::Here(here) => here.ask(request).await,
        }?;
        answered.granted()
    }

    /// Lets go of the directory, with everything in the log.
    pub(crate) async fn close(self) -> Result<()> {
        match self {
            Self::Running(_) => Ok(()),
            Self::Here(here) => {
                if let Some(state) = &here.state {
                    state.children.close().await;
                }
                here.log.flush().await.context("the log could not be written to the end")
            }
        }
    }
}

impl Here {
    async fn ask(&self, mut request: Request<Full<Bytes>>) -> Result<Answer> {
        let uid = rustix::process::getuid().as_raw();
        request.extensions_mut().insert(admin::Door::Local { uid });
        let service = TowerToHyperService::new(self.router.clone());
        let response = hyper::service::Service::call(&service, request).await?;
        Answer::read(response).await
    }
}

/// What came back.
pub(crate) struct Answer {
    status: StatusCode,
    call: Option<String>,
    text: String,
}

impl Answer {
    async fn read<B>(response: Response<B>) -> Result<Self>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let status = response.status();
        let call = response.headers().get(admin::CALL).and_then(|call| call.to_str().ok()).map(str::to_owned);
        let body = Limited::new(response.into_body(), ANSWER).collect().await.map_err(anyhow::Error::from_boxed)?;
        let text = String::from_utf8(body.to_bytes().into())?;
        Ok(Self { status, call, text })
    }

    fn granted(self) -> Result<Self> {
        if self.status.is_success() {
            return Ok(self);
        }
        let body: Value = serde_json::from_str(&self.text).unwrap_or_default();
        let message = body.pointer("/error/message").and_then(Value::as_str).map(str::to_owned);
        let message = message.unwrap_or_else(|| format!("the gateway answered {}", self.status));
        match self.call {
            Some(call) if self.status.is_server_error() => bail!("{message} (recorded as {call})"),
            Some(_) | None => bail!("{message}"),
        }
    }

    /// The answer as JSON.
    pub(crate) fn value(&self) -> Result<Value> {
        serde_json::from_str(&self.text).context("the gateway answered what is not JSON")
    }
}

#[expect(clippy::disallowed_methods, reason = "a command dials its gateway")]
async fn dial(socket: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(socket).await
}

async fn is_answered(socket: &Path) -> bool {
    dial(socket).await.is_ok()
}

/// How long what is asked may take.
fn patience(path: &str) -> Duration {
    if LONG.iter().any(|long| path.starts_with(long)) { PATIENCE } else { SHORT }
}

async fn within(patience: Duration, socket: &Path, request: Request<Full<Bytes>>) -> Result<Answer> {
    // The system takes connections for a process that is stopped.
    tokio::time::timeout(patience, over(socket, request)).await.map_err(|_| {
        let socket = socket.display();
        Unreachable(format!(
            "the gateway at {socket} gave no answer within {patience:?}: it is stopped, or has too much to do"
        ))
    })?
}

async fn over(socket: &Path, request: Request<Full<Bytes>>) -> Result<Answer> {
    let lost = |cause: &dyn std::fmt::Display| Unreachable(format!("the gateway went away: {cause}"));
    let stream = dial(socket).await.map_err(|cause| lost(&cause))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|cause| lost(&cause))?;
    let serving = tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(|cause| lost(&cause))?;
    let answer = Answer::read(response).await;
    drop(sender);
    serving.abort();
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_gateway_that_is_stopped_is_not_waited_for_long() {
        for (path, time) in [("/api/agents", SHORT), ("/api/servers", SHORT), ("/api/audit/verify", PATIENCE)] {
            assert_eq!(patience(path), time, "{path}");
        }
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("control.sock");
        let _stopped = tokio::net::UnixListener::bind(&socket).unwrap();
        let request = Request::builder().uri("/api/agents").body(Full::default()).unwrap();
        let fault = within(Duration::from_millis(50), &socket, request).await.err().unwrap();
        assert!(fault.to_string().contains("gave no answer within 50ms: it is stopped"), "{fault}");
        assert!(fault.is::<Unreachable>());
    }
}
