//! HTTP with SSE of 2024-11-05: a stream for as long as the session, which names where messages go, and on which they are
//! answered.

use super::{AnswerBody, Era, Message, Server, event, status, typed};
use bytes::Bytes;
use http::{Response, StatusCode, Uri};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::sync::{Mutex, mpsc};

/// The streams that are open, by number.
#[derive(Default)]
pub(super) struct Streams {
    open: Mutex<HashMap<usize, mpsc::Sender<Bytes>>>,
    opened: AtomicUsize,
}

impl Streams {
    pub(super) async fn open(&self) -> Response<AnswerBody> {
        let number = self.opened.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = mpsc::channel(16);
        // There is room: the channel is new.
        drop(sender.try_send(Bytes::from(format!("event: endpoint\ndata: /messages?sessionId={number}\n\n"))));
        let mut open = self.open.lock().await;
        open.retain(|_, sender| !sender.is_closed());
        open.insert(number, sender);
        typed("text/event-stream", AnswerBody::Fed(receiver))
    }
}

/// Which stream a message belongs to, by where it was sent.
pub(super) fn stream_of(at: &Uri) -> Option<usize> {
    let query = at.query().filter(|_| at.path() == "/messages")?;
    query.strip_prefix("sessionId=")?.parse().ok()
}

impl Server {
    /// Takes a message, and answers it on its stream.
    pub(super) async fn beside(self: &Arc<Self>, stream: usize, message: &Message<'_>) -> Response<AnswerBody> {
        let Some(said) = self.streams.open.lock().await.get(&stream).cloned() else {
            return status(StatusCode::NOT_FOUND);
        };
        let Some(id) = message.id.filter(|_| !message.method.is_empty()) else { return status(StatusCode::ACCEPTED) };
        let body = if message.method == "initialize" {
            let id = id.get();
            let hello = format!(
                r#"{{"jsonrpc":"2.0","id":{id},"result":{{"protocolVersion":"2024-11-05","capabilities":{{"tools":{{}}}},"serverInfo":{{"name":"bench","version":"1"}}}}}}"#
            );
            AnswerBody::Whole(Some(Bytes::from(event(&hello))))
        } else {
            self.result(Era::Legacy, id.get(), message, true).await.into_body()
        };
        tokio::spawn(async move {
            match body {
                AnswerBody::Whole(Some(answer)) => drop(said.send(answer).await),
                AnswerBody::Fed(mut answer) => {
                    while let Some(piece) = answer.recv().await {
                        drop(said.send(piece).await);
                    }
                }
                AnswerBody::Whole(None) | AnswerBody::Passed(_) => {}
            }
        });
        status(StatusCode::ACCEPTED)
    }
}
