//! What a server of a cell says and hears, whatever kind of server it is.

use crate::process::Line;
use serde_json::Value;
use std::sync::Arc;
use testkit::{Answer, Feed, Upstream, soon};
use tokio::sync::{oneshot, watch};

/// An answer that the server gives word by word.
pub(crate) struct Script {
    said: Said,
    release: Option<oneshot::Sender<()>>,
}

enum Said {
    Http(Feed),
    Process(Line),
}

impl Script {
    /// The next answer of this server to this method.
    pub(crate) fn next(upstream: &Upstream, method: &str, kind: &str) -> Self {
        let (answer, feed) = Answer::fed(kind);
        let (answer, release) = answer.held();
        upstream.next(method, answer);
        Self { said: Said::Http(feed), release: Some(release) }
    }

    /// The head of the answer.
    pub(crate) fn begin(&mut self) {
        if let Some(release) = self.release.take() {
            let _gone = release.send(());
        }
    }

    pub(crate) fn of_stream(feed: Feed) -> Self {
        Self { said: Said::Http(feed), release: None }
    }

    pub(crate) fn of_process(line: Line) -> Self {
        Self { said: Said::Process(line), release: None }
    }

    pub(crate) async fn say(&mut self, message: &Value) {
        self.begin();
        match &self.said {
            Said::Http(feed) => {
                let _heard = feed.message(message).await;
            }
            Said::Process(line) => line.say(message),
        }
    }

    /// Some of a body.
    pub(crate) async fn raw(&mut self, text: &str) {
        self.begin();
        if let Said::Http(feed) = &self.said {
            feed.raw(text.to_owned()).await;
            feed.taken().await;
        }
    }

    pub(crate) async fn cut(mut self) {
        match &self.said {
            Said::Http(feed) => feed.cut().await,
            Said::Process(line) => line.close(),
        }
        self.begin();
    }

    /// Leaves the stream open until the other side has gone.
    pub(crate) async fn stay(&self) {
        match &self.said {
            Said::Http(feed) => feed.closed().await,
            Said::Process(_) => std::future::pending().await,
        }
    }
}

/// The client's answers to a server's questions.
pub(crate) enum Answers {
    Http(Arc<Upstream>),
    Process(watch::Receiver<usize>),
}

impl Answers {
    /// Waits for one.
    pub(crate) async fn come(&mut self) {
        match self {
            Self::Http(upstream) => drop(upstream.arrived("response", 1).await),
            Self::Process(answers) => drop(soon(answers.wait_for(|count| *count > 0)).await.expect("somebody listens")),
        }
    }
}
