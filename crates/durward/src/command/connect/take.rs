//! What is done with each line of the client's. Waits for nobody: whoever is slow holds up nobody else.

use super::{
    bridge::{Bridge, LIMITS},
    errand::{Cancelled, Errand},
    line::{LONGEST, Line},
    post::Post,
};
use bytes::Bytes;
use mcp::{Body, Era, Kind, Message, Skim, error};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

/// What may wait or be under way altogether, in units of [`UNIT`] bytes.
const ROOM: usize = 2048;
const UNIT: usize = 64 << 10;
/// Notifications that may wait for those before them.
const SAID: usize = 1024;

/// Takes lines.
pub(super) struct Intake {
    bridge: Arc<Bridge>,
    room: Arc<Semaphore>,
    /// The handshake that what comes now has to wait for.
    handshake: Gate,
    said: mpsc::Sender<Said>,
}

/// Something that the gateway is told after what was said before.
struct Said {
    message: Message,
    after: Gate,
    /// Lets pass what waits for it, when dropped.
    opens: Option<watch::Sender<()>>,
    room: OwnedSemaphorePermit,
}

/// What opens when a message of the handshake was delivered.
#[derive(Clone, Default)]
struct Gate(Option<watch::Receiver<()>>);

impl Gate {
    /// A closed one, and what opens it when dropped.
    fn new() -> (Self, watch::Sender<()>) {
        let (opens, gate) = watch::channel(());
        (Self(Some(gate)), opens)
    }

    async fn opened(mut self) {
        if let Some(gate) = &mut self.0 {
            // Nothing is ever sent: this ends when the other end is dropped.
            while gate.changed().await.is_ok() {}
        }
    }
}

impl Intake {
    pub(super) fn new(bridge: Arc<Bridge>) -> Self {
        let (said, mut queue) = mpsc::channel::<Said>(SAID);
        let teller = Arc::clone(&bridge);
        tokio::spawn(async move {
            while let Some(Said { message, after, opens, room }) = queue.recv().await {
                after.opened().await;
                teller.notify(message).await;
                drop((opens, room));
            }
        });
        Self { bridge, room: Arc::new(Semaphore::new(ROOM)), handshake: Gate::default(), said }
    }

    /// Takes a line.
    pub(super) async fn take(&mut self, line: Line) {
        let text = match line {
            Line::Text(text) => text,
            Line::TooLong(skim) => return self.unreadable(&skim, error::INVALID_REQUEST, &too_long()).await,
        };
        match mcp::scan(text.clone(), &LIMITS) {
            Ok(Body::Single(message)) => self.message(message).await,
            Ok(Body::Batch(messages)) => self.batch(text, &messages).await,
            Err(fault) => self.unreadable(&Skim::of(&text), fault.code(), &fault.to_string()).await,
        }
    }

    async fn message(&mut self, message: Message) {
        match message.kind() {
            Kind::Request => self.request(message).await,
            Kind::Notification if message.method() == "notifications/cancelled" => self.cancelled(message),
            Kind::Notification => self.notification(message),
            Kind::Response => self.response(message),
        }
    }

    async fn request(&mut self, message: Message) {
        let id = message.id().unwrap_or_default().to_owned();
        let Some(room) = self.room(message.bytes()) else {
            return self.refuse(Some(&id), error::INTERNAL, "too much waits for the gateway already").await;
        };
        let Some(errand) = self.bridge.errands.begin(&message) else {
            return self.refuse(Some(&id), error::INVALID_REQUEST, "the id is in use by a request under way").await;
        };
        let is_modern = message.era() == Era::Modern;
        let after = if is_modern { Gate::default() } else { self.handshake.clone() };
        let opens = (message.method() == "initialize").then(|| self.begin_handshake());
        self.spawn(Post::of(message, Some(errand)), after, opens, room);
    }

    async fn batch(&self, text: Bytes, messages: &[Message]) {
        let ids = || messages.iter().filter(|message| message.kind() == Kind::Request).filter_map(Message::id);
        let Some(room) = self.room(&text) else {
            for id in ids() {
                self.refuse(Some(id), error::INTERNAL, "too much waits for the gateway already").await;
            }
            return;
        };
        for answer in messages.iter().filter(|message| message.kind() == Kind::Response) {
            self.bridge.questions.forget(answer.id().unwrap_or_default());
        }
        let requests = messages.iter().filter(|message| message.kind() == Kind::Request);
        let errands: Vec<Arc<Errand>> = requests.filter_map(|message| self.bridge.errands.begin(message)).collect();
        self.spawn(Post::batch(text, errands), self.handshake.clone(), None, room);
    }

    fn notification(&mut self, message: Message) {
        let after = self.handshake.clone();
        let opens = (message.method() == "notifications/initialized").then(|| {
            self.bridge.session.remember(&message);
            self.begin_handshake()
        });
        self.say(message, after, opens);
    }

    /// Over HTTP a modern request is cancelled by closing its stream (2026-07-28, streamable-http, "Cancellation").
    fn cancelled(&self, message: Message) {
        let id = message.param(&["requestId"]).and_then(|id| String::from_utf8(id.raw.to_vec()).ok());
        match id.map_or(Cancelled::Unknown, |id| self.bridge.errands.cancel(&id)) {
            Cancelled::Here => {}
            Cancelled::There => self.say(message, self.handshake.clone(), None),
            // Its answer is on the way, or it never was.
            Cancelled::Unknown => tracing::debug!("nothing to cancel"),
        }
    }

    fn response(&self, message: Message) {
        self.bridge.questions.forget(message.id().unwrap_or_default());
        let Some(room) = self.room(message.bytes()) else {
            return tracing::warn!("an answer of the client is dropped: too much waits for the gateway already");
        };
        if !self.bridge.session.is_begun() {
            return tracing::warn!("an answer of the client is dropped: nobody asks in this revision");
        }
        let bridge = Arc::clone(&self.bridge);
        tokio::spawn(async move {
            bridge.notify(message).await;
            drop(room);
        });
    }

    fn say(&self, message: Message, after: Gate, opens: Option<watch::Sender<()>>) {
        let is_taken = match self.room(message.bytes()) {
            Some(room) => self.said.try_send(Said { message, after, opens, room }).is_ok(),
            None => false,
        };
        if !is_taken {
            tracing::warn!("a notification of the client is dropped: too much waits for the gateway already");
        }
    }

    /// What comes after this waits until what is given is dropped.
    fn begin_handshake(&mut self) -> watch::Sender<()> {
        let (gate, opens) = Gate::new();
        self.handshake = gate;
        opens
    }

    fn spawn(&self, post: Post, after: Gate, opens: Option<watch::Sender<()>>, room: OwnedSemaphorePermit) {
        let bridge = Arc::clone(&self.bridge);
        tokio::spawn(async move {
            let carried = async {
                after.opened().await;
                // The semaphore is never closed.
                let _turn = bridge.turns.acquire().await;
                bridge.carry(&post).await;
            };
            match post.errands() {
                [errand] => tokio::select! {
                    biased;
                    // What is dropped here closes its stream.
                    () = errand.closed() => {}
                    () = carried => {}
                },
                _ => carried.await,
            }
            drop((opens, room));
        });
    }

    /// Answers what cannot be read, without an id where no answer can carry it or nobody knows which is meant.
    ///
    /// SPEC: what is no message is no notification either, and is answered (JSON-RPC 2.0 §5.1). An id is never `null`
    /// in MCP: an error about what could not be read has none (2025-11-25, basic/index, "Error Responses").
    async fn unreadable(&self, skim: &Skim, code: i64, why: &str) {
        // An answer: whoever asked must not wait for it.
        if let Some(id) = skim.only_id()
            && skim.is_answer()
            && self.bridge.session.is_begun()
        {
            let text = mcp::error_text(Some(id), error::INTERNAL, &format!("the client's answer: {why}"), None);
            if let Ok(Body::Single(message)) = mcp::scan(text, &LIMITS) {
                self.response(message);
            }
        }
        let id = skim.only_id().filter(|_| skim.has_method());
        if id.is_none() {
            tracing::warn!("a line of the client's is no message: {why}");
        }
        self.refuse(id, code, why).await;
    }

    async fn refuse(&self, id: Option<&str>, code: i64, why: &str) {
        self.bridge.voice.say(mcp::error_text(id, code, why, None)).await;
    }

    fn room(&self, text: &Bytes) -> Option<OwnedSemaphorePermit> {
        let units = u32::try_from(text.len().div_ceil(UNIT)).ok()?.max(1);
        Arc::clone(&self.room).try_acquire_many_owned(units).ok()
    }
}

fn too_long() -> String {
    format!("the message is longer than {LONGEST} bytes")
}
