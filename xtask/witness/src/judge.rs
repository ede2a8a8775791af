//! Puts the pieces together, and holds each message against the schema of the revision that its two sides speak.

use crate::{
    conversation::Conversation,
    events::{Events, Lines},
    expected::Expected,
    plan::{Direction, Leg, Plan},
    seen::{About, Content, End, Exchange, Seen},
    verdict::{Fault, Verdict, shortened},
};
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use serde_json::Value;
use std::{
    collections::{BTreeMap, HashMap},
    str,
};
use testkit::schema;

pub(crate) struct Judge {
    pub(crate) plan: Plan,
    exchanges: HashMap<Exchange, Under>,
    conversations: Vec<Conversation>,
    /// Conversations by their session, or by the address for what is posted to their stream.
    sessions: HashMap<(Leg, String), usize>,
    /// The cell that a client visits, by what the client calls itself.
    visited: HashMap<String, usize>,
    heard: BTreeMap<(Option<usize>, Leg, Direction), u64>,
    faults: Vec<Fault>,
}

/// An exchange under way.
struct Under {
    leg: Leg,
    conversation: usize,
    /// The revision that the head of the request names.
    revision: Option<String>,
    /// It holds a request, which has an id.
    is_request: bool,
    /// With what it was answered.
    status: StatusCode,
    body: Body,
}

impl Under {
    fn new(leg: Leg, conversation: usize, revision: Option<String>, body: Body) -> Self {
        Self { leg, conversation, revision, is_request: false, status: StatusCode::OK, body }
    }

    fn is_refused(&self) -> bool {
        self.status.is_client_error() || self.status.is_server_error()
    }

    /// Whether the status says that there need be no message.
    fn may_be_wordless(&self) -> bool {
        // SPEC: whatever holds no request is accepted with 202 and no body (2025-03-26, transports); the body of a
        // refusal may be a message.
        self.status == StatusCode::ACCEPTED || !self.status.is_success()
    }
}

/// What is being put together.
enum Body {
    /// No message, as far as its head says.
    Other(BytesMut),
    Json(BytesMut),
    Events(Events),
    Pipes {
        up: Lines,
        down: Lines,
    },
}

impl Judge {
    pub(crate) fn new(plan: Plan) -> Self {
        Self {
            plan,
            exchanges: HashMap::new(),
            conversations: Vec::new(),
            sessions: HashMap::new(),
            visited: HashMap::new(),
            heard: BTreeMap::new(),
            faults: Vec::new(),
        }
    }

    pub(crate) fn see(&mut self, seen: Seen) {
        match seen {
            Seen::Asked { exchange, leg, about, body } => self.asked(exchange, leg, about, &body),
            Seen::Answered { exchange, session, content, status } => {
                self.answered(exchange, session, content, status);
            }
            Seen::Piece { exchange, bytes } => self.piece(exchange, &bytes),
            Seen::Ended { exchange, end } => self.ended(exchange, end),
            Seen::Started { exchange, leg } => {
                let conversation = self.converse();
                let body = Body::Pipes { up: Lines::default(), down: Lines::default() };
                self.exchanges.insert(exchange, Under::new(leg, conversation, None, body));
            }
            Seen::Spoken { exchange, direction, bytes } => self.spoken(exchange, direction, &bytes),
        }
    }

    pub(crate) fn verdict(self, expected: &'static [Expected]) -> Verdict {
        Verdict::of(self.plan, self.heard, &self.faults, expected)
    }

    fn converse(&mut self) -> usize {
        self.conversations.push(Conversation::default());
        self.conversations.len() - 1
    }

    fn asked(&mut self, exchange: Exchange, leg: Leg, about: About, body: &Bytes) {
        let known = |name: &String| self.sessions.get(&(leg, name.clone())).copied();
        let known = about.session.as_ref().and_then(known).or_else(|| known(&about.path));
        let conversation = known.unwrap_or_else(|| self.converse());
        self.exchanges.insert(exchange, Under::new(leg, conversation, about.revision, Body::Other(BytesMut::new())));
        if !body.is_empty() {
            self.text(exchange, Direction::Up, body);
        }
    }

    fn answered(&mut self, exchange: Exchange, session: Option<String>, content: Content, status: StatusCode) {
        let Some(under) = self.exchanges.get_mut(&exchange) else { return };
        under.status = status;
        let (leg, conversation) = (under.leg, under.conversation);
        under.body = match content {
            Content::Events => Body::Events(Events::default()),
            Content::Json => Body::Json(BytesMut::new()),
            Content::Other | Content::Sealed => Body::Other(BytesMut::new()),
        };
        if let Some(session) = session {
            self.sessions.entry((leg, session)).or_insert(conversation);
        }
        if content == Content::Sealed {
            self.unreadable(exchange, Direction::Down, b"", "it is compressed");
        }
    }

    fn piece(&mut self, exchange: Exchange, bytes: &Bytes) {
        let Some(under) = self.exchanges.get_mut(&exchange) else { return };
        let events = match &mut under.body {
            Body::Pipes { .. } => return,
            Body::Json(whole) | Body::Other(whole) => return whole.extend_from_slice(bytes),
            Body::Events(events) => events.take(bytes),
        };
        let (leg, conversation) = (under.leg, under.conversation);
        for event in events {
            if event.name == "endpoint" {
                let path = String::from_utf8_lossy(&event.data).into_owned();
                self.sessions.insert((leg, path), conversation);
            } else {
                self.text(exchange, Direction::Down, &event.data);
            }
        }
    }

    fn ended(&mut self, exchange: Exchange, end: End) {
        let Some(under) = self.exchanges.get_mut(&exchange) else { return };
        let (may_be_wordless, is_request) = (under.may_be_wordless(), under.is_request);
        match (std::mem::replace(&mut under.body, Body::Other(BytesMut::new())), end) {
            // Whoever left has not seen the end of it, and nobody else has.
            (Body::Json(_) | Body::Other(_), End::Left) => {}
            // The Python SDK says of a session that ended that its answer were JSON, and says nothing.
            (Body::Json(whole), _) if whole.is_empty() && (may_be_wordless || !is_request) => {}
            (Body::Json(whole), End::Whole) => self.text(exchange, Direction::Down, &whole),
            (Body::Json(part), End::Broken) => self.unreadable(exchange, Direction::Down, &part, "it broke off"),
            (Body::Other(_), _) if may_be_wordless => {}
            (Body::Other(whole), _) if !whole.is_empty() || is_request => {
                self.unreadable(exchange, Direction::Down, &whole, "it is neither JSON nor events");
            }
            // A stream may end at any time.
            (Body::Other(_) | Body::Events(_), _) => {}
            (Body::Pipes { up, down }, _) => {
                for (direction, lines) in [(Direction::Up, up), (Direction::Down, down)] {
                    if !lines.begun().is_empty() {
                        self.unreadable(exchange, direction, lines.begun(), "it broke off");
                    }
                }
            }
        }
        self.exchanges.remove(&exchange);
    }

    fn spoken(&mut self, exchange: Exchange, direction: Direction, bytes: &Bytes) {
        let Some(Under { body: Body::Pipes { up, down }, .. }) = self.exchanges.get_mut(&exchange) else { return };
        let lines = if direction == Direction::Up { up } else { down };
        let mut whole = Vec::new();
        lines.take(bytes, |line| whole.push(line.to_vec()));
        for line in whole {
            self.text(exchange, direction, &line);
        }
    }

    /// A text that is to be a message, or a batch of them.
    fn text(&mut self, exchange: Exchange, direction: Direction, text: &[u8]) {
        let read = str::from_utf8(text).map_err(|fault| fault.to_string());
        let read = read.and_then(|text| text.parse::<Value>().map_err(|fault| fault.to_string()));
        match read {
            Ok(Value::Array(batch)) => batch.iter().for_each(|message| self.message(exchange, direction, message)),
            Ok(message) => self.message(exchange, direction, &message),
            Err(why) => self.unreadable(exchange, direction, text, &why),
        }
    }

    fn unreadable(&mut self, exchange: Exchange, direction: Direction, text: &[u8], why: &str) {
        let Some(under) = self.exchanges.get(&exchange) else { return };
        let (leg, client) = (under.leg, self.conversations.get(under.conversation).and_then(|one| one.client.clone()));
        self.faults.push(Fault {
            cell: self.cell(leg, client.as_deref()),
            leg,
            direction,
            revision: None,
            what: "no message".to_owned(),
            message: shortened(&String::from_utf8_lossy(text)),
            faults: vec![format!("it cannot be read: {why}")],
        });
    }

    fn message(&mut self, exchange: Exchange, direction: Direction, message: &Value) {
        let Some(under) = self.exchanges.get_mut(&exchange) else { return };
        let has = |name| message.get(name).is_some();
        under.is_request |= direction == Direction::Up && has("method") && has("id");
        // SPEC: what has no id may be refused with an error that has none (2025-03-26, transports), which the schemas
        // before 2025-11-25 do not know; SDKs write `null`, as JSON-RPC does.
        let has_id = message.get("id").is_some_and(|id| !id.is_null());
        let is_nameless = under.is_refused() && !under.is_request && has("error") && !has_id;
        let (leg, header) = (under.leg, under.revision.clone());
        let Some(conversation) = self.conversations.get_mut(under.conversation) else { return };
        let sense = conversation.hear(direction, header.as_deref(), message);
        let client = conversation.client.clone();
        if let Leg::Client(cell) | Leg::Carried(cell) = leg
            && let Some(cell_of) = self.plan.cell(cell)
        {
            self.visited.insert(cell_of.client.clone(), cell);
        }
        let cell = self.cell(leg, client.as_deref());
        *self.heard.entry((cell, leg, direction)).or_default() += 1;

        let faults = match sense.revision {
            None => vec!["nothing says in which revision it is".to_owned()],
            Some(_) if sense.answers.is_none() && names_a_question(message) => {
                vec!["it answers nothing that was asked".to_owned()]
            }
            Some(_) if sense.is_repeated => vec!["it answers what was answered before".to_owned()],
            Some(revision) if is_nameless => schema::faults(revision, &named(message), None),
            Some(revision) => schema::faults(revision, message, sense.answers.as_deref()),
        };
        if !faults.is_empty() {
            let (revision, what, message) = (sense.revision, sense.what, shortened(&message.to_string()));
            self.faults.push(Fault { cell, leg, direction, revision, what, message, faults });
        }
    }

    /// The cell that something belongs to. What the gateway asks servers for itself belongs to none.
    fn cell(&self, leg: Leg, client: Option<&str>) -> Option<usize> {
        match leg {
            Leg::Client(cell) | Leg::Carried(cell) => Some(cell),
            Leg::Server(_) => self.visited.get(client?).copied(),
        }
    }
}

/// Whether a message says that it answers something; an error may say that nobody knows what.
fn names_a_question(message: &Value) -> bool {
    let is_error = message.get("error").is_some();
    message.get("result").is_some() || (is_error && message.get("id").is_some_and(|id| !id.is_null()))
}

/// The same error, of some request.
fn named(error: &Value) -> Value {
    let mut error = error.clone();
    error.as_object_mut().map(|members| members.insert("id".to_owned(), 0.into()));
    error
}
