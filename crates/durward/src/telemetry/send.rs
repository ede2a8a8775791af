//! Delivers requests to the collector. A failure is told once, and again when it is over.

use anyhow::{Context, Result};
use egress::{Egress, Endpoint};
use http::{
    HeaderValue, Method, Request, StatusCode,
    header::{CONTENT_TYPE, USER_AGENT},
};
use http_body_util::{BodyExt, Full, Limited};
use opentelemetry_proto::tonic::collector::{
    metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest,
};
use prost::Message;
use std::{sync::Arc, time::Duration};
use url::Url;

/// How long the collector may take to answer.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long to wait before a request is sent again, and how often.
const AGAIN: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3)];
/// How much of an answer is read.
const ANSWER: usize = 64 << 10;

/// The collector, as it is configured: an address inside, plain HTTP allowed.
pub(crate) struct Collector {
    egress: Arc<Egress>,
    traces: Endpoint,
    metrics: Endpoint,
    failing: bool,
}

/// Why a request was not taken.
enum Fault {
    /// Not now; it may be sent again.
    Later(String),
    /// Not at all.
    Never(String),
}

impl Collector {
    pub(crate) fn new(base: &Url, egress: Arc<Egress>) -> Result<Self> {
        Ok(Self { egress, traces: endpoint(base, "traces")?, metrics: endpoint(base, "metrics")?, failing: false })
    }

    /// Delivers spans.
    pub(super) async fn traces(&mut self, request: &ExportTraceServiceRequest) {
        let sent = deliver(&self.egress, &self.traces, request.encode_to_vec()).await;
        self.tell(sent);
    }

    /// Delivers metrics.
    pub(super) async fn metrics(&mut self, request: &ExportMetricsServiceRequest) {
        let sent = deliver(&self.egress, &self.metrics, request.encode_to_vec()).await;
        self.tell(sent);
    }

    fn tell(&mut self, sent: Result<(), String>) {
        match (sent, self.failing) {
            (Ok(()), true) => tracing::info!("the telemetry collector takes spans and metrics again"),
            (Err(fault), false) => {
                tracing::warn!(fault, "the telemetry collector takes no spans or metrics; calls are not affected");
            }
            (Ok(()), false) | (Err(_), true) => return,
        }
        self.failing = !self.failing;
    }
}

fn endpoint(base: &Url, signal: &str) -> Result<Endpoint> {
    let mut url = base.clone();
    url.set_path(&format!("{}/v1/{signal}", base.path().trim_end_matches('/')));
    Endpoint::new(&url, true, None).context("telemetry.otlp.endpoint")
}

async fn deliver(egress: &Egress, endpoint: &Endpoint, body: Vec<u8>) -> Result<(), String> {
    let body = hyper::body::Bytes::from(body);
    let mut waits = AGAIN.iter();
    loop {
        match (once(egress, endpoint, body.clone()).await, waits.next()) {
            (Ok(()), _) => return Ok(()),
            (Err(Fault::Later(_)), Some(wait)) => tokio::time::sleep(*wait).await,
            (Err(Fault::Later(fault)), None) | (Err(Fault::Never(fault)), _) => return Err(fault),
        }
    }
}

async fn once(egress: &Egress, endpoint: &Endpoint, body: hyper::body::Bytes) -> Result<(), Fault> {
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = endpoint.uri().clone();
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("durward/", env!("CARGO_PKG_VERSION"))));
    let later = |fault: String| Fault::Later(fault);
    let answer =
        egress.send(endpoint, 0, Box::new(request), DEADLINE).await.map_err(|fault| later(fault.to_string()))?;
    let status = answer.status();
    // Read to its end, the connection can be used again.
    let rest = Limited::new(answer.into_body(), ANSWER).collect();
    let _ = tokio::time::timeout(DEADLINE, rest).await;
    match status {
        good if good.is_success() => Ok(()),
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Err(later(format!("it answered HTTP {status}"))),
        other => Err(Fault::Never(format!("it answered HTTP {other}"))),
    }
}
