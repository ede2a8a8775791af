//! The server of a cell, whatever kind it is: what comes to it, how it answers, how it dies and is there again.

use crate::{
    flow::lasting::{self, Streams},
    process::Processes,
    script::Script,
    table::{Manner, Speaks},
};
use http::StatusCode;
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use testkit::{Answer, Received, Upstream};

/// What servers of one era alone know.
const OF_MODERN: &[&str] = &["server/discover", "subscriptions/listen"];
const OF_LEGACY: &[&str] = &["initialize", "resources/subscribe", "resources/unsubscribe", "ping", "GET", "DELETE"];

/// A request of an era that it does not speak.
fn refused(request: &Received, is_modern: bool) -> Answer {
    let code = if is_modern { -32022 } else { -32000 };
    Answer::error(&request.id(), code, "of another era").with_status(StatusCode::BAD_REQUEST)
}

#[derive(Clone)]
pub(crate) enum Server {
    Http(Arc<Upstream>, Speaks),
    /// With its streams, in the order in which they were opened.
    Lasting(Arc<Upstream>, Streams),
    Process(Arc<Processes>),
}

impl Server {
    pub(crate) fn speaks(&self) -> Speaks {
        match self {
            Self::Http(_, speaks) => *speaks,
            Self::Lasting(..) => Speaks::Lasting,
            Self::Process(processes) => Speaks::Process(processes.era, processes.manner),
        }
    }

    pub(crate) fn upstream(&self) -> Arc<Upstream> {
        match self {
            Self::Http(upstream, _) | Self::Lasting(upstream, _) => Arc::clone(upstream),
            Self::Process(_) => panic!("it is a process"),
        }
    }

    /// The next answer to this method, where it has to be prepared.
    pub(crate) fn prepared(&self, method: &str, kind: &str) -> Option<Script> {
        match self {
            Self::Http(upstream, _) => Some(Script::next(upstream, method, kind)),
            Self::Lasting(..) | Self::Process(_) => None,
        }
    }

    /// Waits for the request of this method with this number, from 1: its id, and how it is answered. None where that was
    /// to be prepared, and was not.
    pub(crate) async fn asked(&self, method: &str, count: usize, prepared: Option<Script>) -> Option<(Value, Script)> {
        match self {
            Self::Http(upstream, _) => {
                let script = prepared?;
                Some((upstream.arrived(method, count).await.id(), script))
            }
            Self::Lasting(upstream, streams) => {
                let request = upstream.arrived(method, count).await;
                let feed = lasting::stream_of(&request, streams).expect("it came by its stream");
                Some((request.id(), Script::of_stream(feed)))
            }
            Self::Process(processes) => {
                let (request, line) = processes.asked(method, count).await;
                Some((request["id"].clone(), Script::of_process(line)))
            }
        }
    }

    /// Waits for the request of this method with this number, from 1.
    pub(crate) async fn arrived(&self, method: &str, count: usize) {
        match self {
            Self::Http(upstream, _) | Self::Lasting(upstream, _) => drop(upstream.arrived(method, count).await),
            Self::Process(processes) => drop(processes.asked(method, count).await),
        }
    }

    /// Whether it is one process for everybody.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self, Self::Process(processes) if processes.manner == Manner::Shared)
    }

    /// How long it may take until nothing of it is left that the gateway lets go.
    pub(crate) fn takes(&self) -> Duration {
        let is_stubborn = matches!(self, Self::Process(processes) if processes.manner == Manner::Stubborn);
        Duration::from_secs(if is_stubborn { 6 } else { 2 })
    }

    /// Waits for an answer of the client to a question.
    pub(crate) async fn answered(&self) {
        match self {
            Self::Http(upstream, _) | Self::Lasting(upstream, _) => drop(upstream.arrived("response", 1).await),
            Self::Process(processes) => processes.answered().await,
        }
    }

    /// Requests that it has not answered to the end, or its processes.
    pub(crate) fn open(&self) -> usize {
        match self {
            Self::Http(upstream, _) | Self::Lasting(upstream, _) => upstream.open(),
            Self::Process(processes) => processes.running(),
        }
    }

    /// Answers nothing any more that a test prepared.
    pub(crate) fn unqueue(&self) {
        match self {
            Self::Http(upstream, _) | Self::Lasting(upstream, _) => drop(upstream.unqueue()),
            Self::Process(_) => {}
        }
    }

    /// It speaks this era alone from now on.
    pub(crate) fn becomes(&self, speaks: Speaks) {
        let upstream = self.upstream();
        let is_modern = speaks == Speaks::Modern;
        let (own, others) = if is_modern { (OF_MODERN, OF_LEGACY) } else { (OF_LEGACY, OF_MODERN) };
        upstream.unqueue();
        for method in own {
            upstream.honestly(method);
        }
        for method in others {
            upstream.always(method, move |request| refused(request, is_modern));
        }
        let tool = |request: &Received| {
            let params = &request.json()["params"];
            Answer::result(&request.id(), &json!({"resultType": "complete", "content": [], "_meta": params["_meta"]}))
        };
        upstream.always("tools/call", move |request| {
            let asks_modern = request.header("mcp-protocol-version") == Some(testkit::MODERN);
            if asks_modern == is_modern { tool(request) } else { refused(request, is_modern) }
        });
    }

    /// It speaks the other era.
    pub(crate) fn flips(&self) {
        self.becomes(if self.speaks() == Speaks::Modern { Speaks::Legacy } else { Speaks::Modern });
    }

    pub(crate) fn kill(&self) {
        match self {
            Self::Http(upstream, _) | Self::Lasting(upstream, _) => upstream.kill(),
            Self::Process(processes) => processes.kill(),
        }
    }

    /// One that was killed, there again, where it was.
    pub(crate) async fn revived(&self) -> Self {
        let at = |upstream: Arc<Upstream>| async move {
            upstream.dead().await;
            let tool = json!({"name": "echo", "inputSchema": {"type": "object"}});
            Arc::new(Upstream::at(upstream.address(), vec![tool]).await)
        };
        match self {
            Self::Http(upstream, speaks) => Self::Http(at(Arc::clone(upstream)).await, *speaks),
            Self::Lasting(upstream, _) => {
                let upstream = at(Arc::clone(upstream)).await;
                let streams = lasting::serve(&upstream);
                Self::Lasting(upstream, streams)
            }
            Self::Process(processes) => {
                processes.revive();
                self.clone()
            }
        }
    }
}
