//! A closed loop: every connection sends its next request when the last is answered and the answer found right.

use crate::{
    message::{Era, Question},
    wire::{Head, Wire},
};
use anyhow::{Context, Result, ensure};
use std::{
    cell::RefCell,
    fmt::Write,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};
use tokio::task::LocalSet;

/// What to send, and where.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    pub(crate) address: SocketAddr,
    pub(crate) path: &'static str,
    pub(crate) token: Option<String>,
    pub(crate) era: Era,
    pub(crate) question: Question,
    pub(crate) connections: usize,
    pub(crate) warmup: Duration,
    pub(crate) window: Duration,
}

/// What happened inside the window. Times are from sending to the last byte, in microseconds.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) calls: u32,
    pub(crate) seconds: f64,
    times: Vec<f64>,
    first_bytes: Vec<f64>,
}

impl Outcome {
    pub(crate) fn rate(&self) -> f64 {
        if self.seconds > 0.0 { f64::from(self.calls) / self.seconds } else { 0.0 }
    }

    pub(crate) fn time(&self, permille: usize) -> f64 {
        quantile(&self.times, permille)
    }

    pub(crate) fn first_byte(&self, permille: usize) -> f64 {
        quantile(&self.first_bytes, permille)
    }
}

/// The value below which so many of a thousand (sorted) values lie.
pub(crate) fn quantile(sorted: &[f64], permille: usize) -> f64 {
    sorted.get(sorted.len().saturating_sub(1) * permille / 1_000).copied().unwrap_or(f64::NAN)
}

/// Runs it on this thread. `begin` is called as the window opens and `end` as it closes.
pub(crate) async fn run(load: &Load, begin: impl FnOnce(), end: impl FnOnce()) -> Result<Outcome> {
    let mut talks = Vec::new();
    for index in 0..load.connections {
        // Numbers of their own, so that an answer to another connection is a wrong one.
        talks.push(Talk::open(load, index as u64 * 1_000_000_000).await.context("opening a conversation")?);
    }
    let opens = Instant::now() + load.warmup;
    let closes = opens + load.window;
    let outcome = Rc::new(RefCell::new(Outcome { seconds: load.window.as_secs_f64(), ..Outcome::default() }));
    let local = LocalSet::new();
    let tasks: Vec<_> = talks
        .into_iter()
        .map(|mut talk| {
            let outcome = Rc::clone(&outcome);
            local.spawn_local(async move {
                loop {
                    let sent = Instant::now();
                    if sent >= closes {
                        return Ok::<_, anyhow::Error>(());
                    }
                    let head = talk.ask().await?;
                    let done = Instant::now();
                    if sent >= opens && done <= closes {
                        let mut outcome = outcome.borrow_mut();
                        outcome.times.push((done - sent).as_secs_f64() * 1e6);
                        outcome.first_bytes.push((head.first_byte - sent).as_secs_f64() * 1e6);
                    }
                    outcome.borrow_mut().calls += u32::from(done >= opens && done <= closes);
                }
            })
        })
        .collect();
    local
        .run_until(async {
            tokio::time::sleep_until(opens.into()).await;
            begin();
            tokio::time::sleep_until(closes.into()).await;
            end();
            for task in tasks {
                task.await??;
            }
            Ok::<_, anyhow::Error>(())
        })
        .await?;
    let mut outcome = outcome.take();
    outcome.times.sort_by(f64::total_cmp);
    outcome.first_bytes.sort_by(f64::total_cmp);
    ensure!(!outcome.times.is_empty(), "not one answer inside the window");
    Ok(outcome)
}

/// One connection and the conversation on it.
struct Talk {
    wire: Wire,
    fixed: String,
    era: Era,
    question: Question,
    number: u64,
    body: String,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Talk {
    async fn open(load: &Load, number: u64) -> Result<Self> {
        let token = load.token.as_ref().map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        let fixed = format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
             Accept: application/json, text/event-stream\r\n{token}",
            load.path, load.address
        );
        let mut talk = Self {
            wire: Wire::dial(load.address).await?,
            fixed,
            era: load.era,
            question: load.question,
            number,
            body: String::new(),
            request: Vec::new(),
            answer: Vec::new(),
        };
        match load.era {
            Era::Legacy => talk.shake_hands().await?,
            Era::Modern => {
                let question = load.question;
                let (version, method) = (load.era.version(), question.method());
                write!(talk.fixed, "MCP-Protocol-Version: {version}\r\nMcp-Method: {method}\r\n")?;
                if let Some(tool) = question.tool() {
                    write!(talk.fixed, "Mcp-Name: {tool}\r\n")?;
                }
            }
        }
        Ok(talk)
    }

    async fn shake_hands(&mut self) -> Result<()> {
        self.body.push_str(r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"bench","version":"1"}}}"#);
        let head = self.exchange().await?;
        let said = || String::from_utf8_lossy(&self.answer).into_owned();
        ensure!(head.status == 200, "initialize: status {}: {}", head.status, said());
        let session = head.session.with_context(|| format!("no session: {}", said()))?;
        let version = self.era.version();
        write!(self.fixed, "Mcp-Session-Id: {session}\r\nMCP-Protocol-Version: {version}\r\n")?;
        self.body.clear();
        self.body.push_str(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
        let head = self.exchange().await?;
        ensure!(head.status == 202, "initialized: status {}", head.status);
        Ok(())
    }

    async fn ask(&mut self) -> Result<Head> {
        self.number += 1;
        let mut body = std::mem::take(&mut self.body);
        self.question.write(self.number, self.era, &mut body)?;
        self.body = body;
        let head = self.exchange().await?;
        let answer = self.answer.as_slice();
        ensure!(head.status == 200, "status {}: {}", head.status, String::from_utf8_lossy(answer));
        let answer = if head.is_event_stream { last_event(answer)? } else { answer };
        self.question.verify(self.number, self.era, answer)?;
        Ok(head)
    }

    async fn exchange(&mut self) -> Result<Head> {
        self.request.clear();
        self.request.extend_from_slice(self.fixed.as_bytes());
        self.request.extend_from_slice(format!("Content-Length: {}\r\n\r\n", self.body.len()).as_bytes());
        self.request.extend_from_slice(self.body.as_bytes());
        self.wire.exchange(&self.request, &mut self.answer).await
    }
}

/// The data of the last event that has some.
fn last_event(stream: &[u8]) -> Result<&[u8]> {
    let text = std::str::from_utf8(stream)?;
    let data = text.lines().rfind(|line| line.starts_with("data:")).context("a stream without an event")?;
    Ok(data.trim_start_matches("data:").trim_start().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::{Load, run};
    use crate::{
        message::{Era, Question},
        proxy, upstream,
    };
    use std::{net::SocketAddr, time::Duration};
    use tokio::net::TcpListener;

    async fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    fn load(address: SocketAddr, path: &'static str, era: Era, question: Question) -> Load {
        let (warmup, window) = (Duration::ZERO, Duration::from_millis(40));
        Load { address, path, token: None, era, question, connections: 2, warmup, window }
    }

    #[tokio::test]
    async fn every_question_is_answered_rightly_through_the_bare_proxy() {
        let ((upstream, behind), (front, address)) = (listener().await, listener().await);
        let serving = async {
            tokio::select! {
                served = upstream::accept(upstream, 20) => served,
                passed = proxy::accept(front, behind) => passed,
            }
        };
        let asking = async {
            for era in [Era::Legacy, Era::Modern] {
                for path in ["/mcp", "/events"] {
                    for question in
                        [Question::Echo(100), Question::Sized(10_000), Question::Stream(2), Question::List(20)]
                    {
                        let outcome = run(&load(address, path, era, question), || {}, || {}).await.unwrap();
                        assert!(outcome.calls > 0, "{era:?} {path} {question:?}");
                    }
                }
            }
        };
        tokio::select! {
            served = serving => served.unwrap(),
            () = asking => {}
        }
    }

    #[tokio::test]
    async fn a_wrong_answer_ends_the_measurement() {
        let (listener, address) = listener().await;
        let asking = async { run(&load(address, "/mcp", Era::Modern, Question::List(7)), || {}, || {}).await };
        tokio::select! {
            served = upstream::accept(listener, 6) => served.unwrap(),
            outcome = asking => assert!(outcome.is_err()),
        }
    }
}
