//! What a client hears of one request, as it comes, read to its end unless the client goes away.

use serde_json::Value;
use std::time::Duration;
use testkit::{Ask, Event, soon};
use tokio::{sync::watch, task::JoinHandle, time::timeout};

/// What was heard so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heard {
    /// The id under which the record of the call is found; empty before the head.
    pub(crate) call: String,
    /// 0 before the head.
    pub(crate) status: u16,
    /// The events of a stream, or the body as one.
    pub(crate) events: Vec<Event>,
    /// Nothing more comes.
    pub(crate) over: bool,
}

impl Heard {
    /// How many messages of this method came.
    pub(crate) fn count(&self, method: &str) -> usize {
        self.events.iter().filter(|event| event.json()["method"] == method).count()
    }
}

/// A request on its way. Dropping it is going away.
pub(crate) struct Hearing {
    reading: JoinHandle<()>,
    heard: watch::Receiver<Heard>,
    /// The id of the request, as it was sent.
    id: Value,
}

impl Drop for Hearing {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

impl Hearing {
    pub(crate) fn begin(ask: Ask, id: Value) -> Self {
        let (said, heard) = watch::channel(Heard::default());
        let reading = tokio::spawn(async move {
            read(ask, &said).await;
            said.send_modify(|heard| heard.over = true);
        });
        Self { reading, heard, id }
    }

    pub(crate) fn so_far(&self) -> Heard {
        self.heard.borrow().clone()
    }

    /// Waits for the head of the answer.
    pub(crate) async fn head(&self) {
        self.until(|heard| heard.status != 0).await;
    }

    /// Waits for so many messages, and gives the last of them.
    pub(crate) async fn message(&self, count: usize) -> Value {
        let heard = self.until(|heard| heard.events.len() >= count).await;
        heard.events.get(count - 1).expect("it came").json()
    }

    /// Waits for the answer to the request.
    pub(crate) async fn answer(&self) -> Value {
        self.until(|heard| self.answer_in(heard).is_some()).await;
        self.answer_in(&self.so_far()).expect("it came")
    }

    /// Waits until what was heard is enough.
    pub(crate) async fn until(&self, enough: impl Fn(&Heard) -> bool) -> Heard {
        let mut heard = self.heard.clone();
        let seen = soon(heard.wait_for(|heard| enough(heard) || heard.over)).await.expect("somebody reads").clone();
        assert!(enough(&seen), "it ended before: {seen:?}");
        seen
    }

    /// Whether it ends within that time, or is answered.
    pub(crate) async fn ends(&self, within: Duration) -> bool {
        let mut heard = self.heard.clone();
        timeout(within, heard.wait_for(|heard| heard.over || self.answer_in(heard).is_some())).await.is_ok()
    }

    /// Whether so many messages of this method have come within that time, or it ended.
    pub(crate) async fn hears(&self, method: &str, count: usize, within: Duration) -> bool {
        let mut heard = self.heard.clone();
        timeout(within, heard.wait_for(|heard| heard.over || heard.count(method) >= count)).await.is_ok()
    }

    /// What the client has of it in the end, in words.
    pub(crate) fn words(&self) -> String {
        let heard = self.so_far();
        match self.answer_in(&heard) {
            Some(answer) if answer["result"]["resultType"] == "input_required" => "a question".to_owned(),
            Some(answer) if answer.get("error").is_some() => format!("error {}", answer["error"]["code"]),
            Some(_) => "the answer".to_owned(),
            None if !heard.over => "stays open".to_owned(),
            None if heard.status == 0 => "no answer".to_owned(),
            None if heard.status != 200 => format!("HTTP {}", heard.status),
            None => "the end".to_owned(),
        }
    }

    fn answer_in(&self, heard: &Heard) -> Option<Value> {
        let answers = |message: &Value| {
            (message.get("result").is_some() || message.get("error").is_some()) && message["id"] == self.id
        };
        heard.events.iter().map(Event::json).find(answers)
    }
}

async fn read(ask: Ask, said: &watch::Sender<Heard>) {
    let Ok(mut reply) = ask.try_send().await else { return };
    said.send_modify(|heard| {
        heard.status = reply.status.as_u16();
        reply.header("durward-call-id").unwrap_or_default().clone_into(&mut heard.call);
    });
    if reply.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream")) {
        while let Some(event) = reply.event().await {
            said.send_modify(|heard| heard.events.push(event));
        }
        return;
    }
    let data = reply.text().await;
    if !data.is_empty() {
        said.send_modify(|heard| heard.events.push(Event { data, ..Event::default() }));
    }
}
