//! A server of the transport of 2024-11-05: one stream for all it says, POSTs beside it for what it hears.
//!
//! Carries messages as a process's pipes do. Credentials go with the GET and with every POST, and neither goes anywhere
//! but to the origin that is configured.

use super::{
    Arrival, Source, UpstreamFault,
    child::Line,
    http::{self as wire, Events, Heard, Outbound, Spoken},
};
use crate::{inject::Injected, server::Server, state::State};
use ::http::{Method, StatusCode, Uri};
use bytes::Bytes;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, oneshot, watch};
use url::Url;

/// Messages of the server that wait to be read. Few: each may be as large as an answer.
const BACKLOG: usize = 2;

/// Where messages are posted, once the server has said so.
type Address = Option<Result<Uri, UpstreamFault>>;

/// One stream and what is posted beside it. Dropping it closes the stream.
pub(crate) struct Lasting {
    state: Arc<State>,
    server: Arc<Server>,
    injected: Arc<Injected>,
    limit: usize,
    address: watch::Receiver<Address>,
    ending: Arc<Mutex<Option<UpstreamFault>>>,
    stop: Mutex<Option<oneshot::Sender<()>>>,
}

impl Lasting {
    /// Opens the stream. What the server says comes out of the other end.
    pub(crate) fn open(
        state: &Arc<State>,
        server: &Arc<Server>,
        limit: usize,
    ) -> Result<(Self, mpsc::Receiver<Line>), UpstreamFault> {
        let injected =
            crate::inject::credentials(state, server).map_err(|fault| UpstreamFault::Down(fault.to_string()))?;
        let (said, hears) = mpsc::channel(BACKLOG);
        let (found, address) = watch::channel(None);
        let (stop, stopped) = oneshot::channel();
        let lasting = Self {
            state: Arc::clone(state),
            server: Arc::clone(server),
            injected: Arc::new(injected),
            limit,
            address,
            ending: Arc::default(),
            stop: Mutex::new(Some(stop)),
        };
        let reader = Reader {
            state: Arc::clone(state),
            server: Arc::clone(server),
            injected: Arc::clone(&lasting.injected),
            limit,
            ending: Arc::clone(&lasting.ending),
        };
        tokio::spawn(async move {
            tokio::select! {
                () = reader.read(found, said) => {}
                _ = stopped => {}
            }
        });
        Ok((lasting, hears))
    }

    /// Posts one message. What refuses it, if anything does: an error by its status, for this message alone.
    pub(crate) async fn send(&self, message: Bytes) -> Result<Option<Arrival>, UpstreamFault> {
        let mut address = self.address.clone();
        let found = address.wait_for(Option::is_some).await.ok().and_then(|found| found.clone());
        let address = found.unwrap_or_else(|| Err(UpstreamFault::Down(self.ending())))?;
        let outbound = Outbound::new(Method::POST, wire::own(), message);
        let Self { state, server, injected, limit, .. } = self;
        let sent = wire::send_to(state, server, injected, Some(&address), outbound, *limit, server.deadline).await;
        let (arrival, _) = sent?;
        match arrival.status() {
            status if status.is_success() => Ok(None),
            // SPEC: nothing says what a refusal means here. Of a server that knows the stream no more, no answer can come.
            // Not handed on: to a client of Streamable HTTP its own session would be gone.
            status @ (StatusCode::NOT_FOUND | StatusCode::GONE) => {
                drop(self.stop.lock().unwrap_or_else(PoisonError::into_inner).take());
                Err(UpstreamFault::Status(status))
            }
            _ => Ok(Some(arrival)),
        }
    }

    /// How the stream ended, for the log.
    pub(crate) fn ending(&self) -> String {
        self.fault().map_or_else(|| "the stream of the server ended".to_owned(), |fault| fault.to_string())
    }

    /// What ended it.
    pub(crate) fn fault(&self) -> Option<UpstreamFault> {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What reads the stream.
struct Reader {
    state: Arc<State>,
    server: Arc<Server>,
    injected: Arc<Injected>,
    limit: usize,
    ending: Arc<Mutex<Option<UpstreamFault>>>,
}

impl Reader {
    async fn read(self, found: watch::Sender<Address>, said: mpsc::Sender<Line>) {
        let ending = self.read_on(&found, &said).await.err();
        let fault = ending.unwrap_or_else(|| UpstreamFault::Down("the server ended its stream".to_owned()));
        *self.ending.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault.clone());
        if found.borrow().is_none() {
            found.send_replace(Some(Err(fault)));
        }
    }

    async fn read_on(&self, found: &watch::Sender<Address>, said: &mpsc::Sender<Line>) -> Result<(), UpstreamFault> {
        let outbound = Outbound::new(Method::GET, wire::own_stream(), Bytes::new());
        let (arrival, _) = wire::send(&self.state, &self.server, &self.injected, outbound, self.limit).await?;
        let mut events = match arrival {
            Arrival::Stream { source: Source::Http(events), .. } => events,
            other => {
                return Err(UpstreamFault::Protocol(format!(
                    "GET was answered HTTP {} without a stream",
                    other.status()
                )));
            }
        };
        let address = tokio::time::timeout(self.server.deadline, self.address(&mut events)).await;
        let address = address.map_err(|_| UpstreamFault::Timeout(self.server.deadline))??;
        found.send_replace(Some(Ok(address)));
        let mut spoken = Spoken::new(*events);
        while let Some(heard) = spoken.next().await? {
            let line = match heard {
                Heard::Event(event) => match event.message() {
                    Some(message) => Line::Whole(message.clone()),
                    None => continue,
                },
                Heard::Cut(skim) => Line::Cut(skim),
                Heard::Over(skim) => {
                    let (server, longest) = (&self.server.name, self.limit);
                    tracing::warn!(%server, longest, "the server said something that is too long; it is dropped");
                    // An answer, but nobody knows to what: whoever waits for it is not to wait for ever.
                    if skim.is_answer() && skim.only_id().is_none() {
                        return Err(UpstreamFault::TooBig(self.limit));
                    }
                    Line::Over(skim)
                }
            };
            if said.send(line).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    /// The address that the event `endpoint` names. What comes before it concerns nobody: signs of life, and messages that
    /// nobody can have waited for.
    async fn address(&self, events: &mut Events) -> Result<Uri, UpstreamFault> {
        while let Some(event) = events.next().await? {
            let Some(data) = event.data.as_ref().filter(|data| !data.is_empty()) else { continue };
            if event.event.as_ref().is_none_or(|kind| kind.as_ref() != b"endpoint") {
                let server = &self.server.name;
                tracing::debug!(%server, "an event before `endpoint` is passed over");
                continue;
            }
            let base = self.server.url().ok_or_else(|| UpstreamFault::Protocol("the server has no URL".to_owned()))?;
            return beside(&base, &String::from_utf8_lossy(data)).map_err(UpstreamFault::Endpoint);
        }
        Err(UpstreamFault::Protocol("its stream ended before the event `endpoint`".to_owned()))
    }
}

/// The address for messages. SECURITY: it must have the origin of the stream, or a server could send the gateway, and its
/// credential, elsewhere.
fn beside(base: &Url, named: &str) -> Result<Uri, String> {
    let address = base.join(named.trim()).map_err(|_| "its event `endpoint` names no address".to_owned())?;
    if address.origin() != base.origin() || !address.username().is_empty() || address.password().is_some() {
        return Err("its event `endpoint` names an address of another origin than the configured one".to_owned());
    }
    let target = match address.query() {
        Some(query) => format!("{}?{query}", address.path()),
        None => address.path().to_owned(),
    };
    target.parse().map_err(|_| "its event `endpoint` names no address that can be sent".to_owned())
}

#[cfg(test)]
mod tests {
    use super::beside;

    #[test]
    fn messages_go_to_the_origin_of_the_stream_and_nowhere_else() {
        let base = "https://mcp.example.com/a/sse?x=1".parse().unwrap();
        for (named, expected) in [
            ("/messages?sessionId=1", Some("/messages?sessionId=1")),
            ("messages?sessionId=1", Some("/a/messages?sessionId=1")),
            ("?sessionId=1", Some("/a/sse?sessionId=1")),
            ("https://mcp.example.com/m", Some("/m")),
            ("https://mcp.example.com:443/m", Some("/m")),
            ("http://mcp.example.com/m", None),
            ("https://mcp.example.com:8443/m", None),
            ("https://example.com/m", None),
            ("//evil.example/m", None),
            ("\\\\evil.example/m", None),
            ("https://mcp.example.com@evil.example/m", None),
            ("https://user@mcp.example.com/m", None),
            ("javascript:alert(1)", None),
        ] {
            assert_eq!(beside(&base, named).ok().map(|uri| uri.to_string()).as_deref(), expected, "{named}");
        }
    }
}
