//! Sends spans and metrics to an OpenTelemetry collector, over OTLP/HTTP in its protobuf form.
//!
//! Off unless configured. Runs beside the gateway on a bounded queue: a collector that is slow or gone costs spans,
//! never calls. Speaks the protocol's own messages, so that what is exported follows from closed calls and from
//! nothing else: no global tracer, no variable of the environment.

mod metric;
mod send;
mod span;

pub(crate) use send::Collector;

use gateway::{journal::Closed, observe::Observer, state::State};
use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    resource::v1::Resource,
};
use std::{sync::Arc, time::Duration};
use tokio::{sync::mpsc, task::JoinHandle, time::MissedTickBehavior};

/// Closed calls that wait to be exported; more than this are dropped and counted.
const QUEUE: usize = 4096;
/// Closed calls in one request.
const AT_ONCE: usize = 256;
/// How long a span waits for company.
const SPANS_EVERY: Duration = Duration::from_secs(1);
/// How often metrics are sent.
const METRICS_EVERY: Duration = Duration::from_secs(15);
/// How long what is left may take when the gateway stops.
const FLUSH: Duration = Duration::from_secs(5);

/// An export that runs. It ends when the observer hands nothing on any more.
pub(crate) struct Telemetry {
    task: JoinHandle<()>,
}

struct Export {
    collector: Collector,
    observer: Arc<Observer>,
    state: Arc<State>,
    resource: Resource,
}

impl Telemetry {
    /// Starts exporting what `observer` sees to the collector.
    pub(crate) fn start(collector: Collector, observer: &Arc<Observer>, state: &Arc<State>) -> Self {
        let (sender, closed) = mpsc::channel(QUEUE);
        let export =
            Export { collector, observer: Arc::clone(observer), state: Arc::clone(state), resource: resource() };
        let task = tokio::spawn(export.run(closed));
        observer.export(Some(sender));
        Self { task }
    }

    /// Waits until what is left is sent. To be called once the observer has stopped.
    pub(crate) async fn finish(self) {
        let mut task = self.task;
        if tokio::time::timeout(FLUSH, &mut task).await.is_err() {
            task.abort();
            tracing::warn!("the collector did not take the last spans and metrics in time");
        }
    }
}

impl Export {
    async fn run(mut self, mut closed: mpsc::Receiver<Closed>) {
        let mut metrics = tokio::time::interval(METRICS_EVERY);
        metrics.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick comes at once, when there is nothing to tell yet.
        metrics.tick().await;
        let mut calls = Vec::with_capacity(AT_ONCE);
        loop {
            tokio::select! {
                more = receive(&mut closed, &mut calls) => {
                    self.send_spans(&mut calls).await;
                    if !more {
                        self.send_metrics().await;
                        return;
                    }
                }
                _ = metrics.tick() => self.send_metrics().await,
            }
        }
    }

    async fn send_spans(&mut self, calls: &mut Vec<Closed>) {
        let servers = self.state.snapshot.load_full();
        let spans: Vec<_> = calls.drain(..).flat_map(|closed| span::of(&closed, &servers)).collect();
        if !spans.is_empty() {
            self.collector.traces(&span::request(spans, &self.resource)).await;
        }
    }

    async fn send_metrics(&mut self) {
        let (began, now) = (self.observer.began(), self.state.clock.now());
        let request = metric::request(self.observer.families(), began, now, &self.resource);
        self.collector.metrics(&request).await;
    }
}

/// Collects closed calls for one request. `false` once there are no more to come. Nothing is lost if it is dropped.
async fn receive(closed: &mut mpsc::Receiver<Closed>, calls: &mut Vec<Closed>) -> bool {
    if calls.is_empty() && closed.recv_many(calls, 1).await == 0 {
        return false;
    }
    let company = async {
        while calls.len() < AT_ONCE {
            if closed.recv_many(calls, AT_ONCE - calls.len()).await == 0 {
                return false;
            }
        }
        true
    };
    tokio::time::timeout(SPANS_EVERY, company).await.unwrap_or(true)
}

/// What all spans and metrics are of.
fn resource() -> Resource {
    let attributes = vec![
        attribute("service.name", "durward"),
        attribute("service.version", env!("CARGO_PKG_VERSION")),
        attribute("service.instance.id", gateway::call::new_id().to_string()),
    ];
    Resource { attributes, ..Resource::default() }
}

fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "durward".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    }
}

fn attribute(key: &str, value: impl Into<String>) -> KeyValue {
    attribute_of(key, Value::StringValue(value.into()))
}

fn attribute_of(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn nanos(at: vocab::Timestamp) -> u64 {
    u64::try_from(at.as_micros()).unwrap_or_default().saturating_mul(1000)
}
