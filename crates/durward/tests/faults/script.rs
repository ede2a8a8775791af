//! What a server of a cell says, word by word, whatever kind of server it is.

use crate::process::Line;
use serde_json::Value;
use testkit::{Answer, Feed, Upstream};
use tokio::sync::oneshot;

/// An answer that the server gives word by word.
pub(crate) struct Script {
    said: Said,
    release: Option<oneshot::Sender<()>>,
}

enum Said {
    /// A body of JSON.
    Body(Feed),
    Events(Feed),
    Process(Line),
}

impl Script {
    /// The next answer of this server to this method.
    pub(crate) fn next(upstream: &Upstream, method: &str, kind: &str) -> Self {
        let (answer, feed) = Answer::fed(kind);
        let (answer, release) = answer.held();
        upstream.next(method, answer);
        let said = if kind == "text/event-stream" { Said::Events(feed) } else { Said::Body(feed) };
        Self { said, release: Some(release) }
    }

    /// The head of the answer.
    pub(crate) fn begin(&mut self) {
        if let Some(release) = self.release.take() {
            let _gone = release.send(());
        }
    }

    pub(crate) fn of_stream(feed: Feed) -> Self {
        Self { said: Said::Events(feed), release: None }
    }

    pub(crate) fn of_process(line: Line) -> Self {
        Self { said: Said::Process(line), release: None }
    }

    pub(crate) async fn say(&mut self, message: &Value) {
        self.begin();
        match &self.said {
            Said::Body(_) => self.raw(&message.to_string()).await,
            Said::Events(feed) => drop(feed.message(message).await),
            Said::Process(line) => line.say(message),
        }
    }

    /// Some of a body.
    pub(crate) async fn raw(&mut self, text: &str) {
        self.begin();
        if let Said::Body(feed) = &self.said {
            feed.raw(text.to_owned()).await;
            feed.taken().await;
        }
    }

    pub(crate) async fn cut(mut self) {
        match &self.said {
            Said::Body(feed) | Said::Events(feed) => feed.cut().await,
            Said::Process(line) => line.close(),
        }
        self.begin();
    }

    /// Leaves the stream open until the other side has gone.
    pub(crate) async fn stay(&self) {
        match &self.said {
            Said::Body(feed) | Said::Events(feed) => feed.closed().await,
            // It stays by itself.
            Said::Process(_) => {}
        }
    }
}
