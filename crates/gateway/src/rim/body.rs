//! Bodies of requests on their way in: how large one may be, how long it may take, and what all of them hold together.
//!
//! What has arrived whole at once is nobody's burden. What waits for its rest is counted, the head with it: for strangers
//! in a share of their own, so that they are in nobody's way, and for callers with a share for each principal.

use crate::{
    deadline::within,
    stop::{Stage, Stop},
};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use mcp::error;
use std::{
    collections::HashMap,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use vocab::PrincipalId;

/// How long a client may take to send a body.
const BODY: Duration = Duration::from_secs(30);
/// The largest body that is read before it is known who sends it, in bytes.
const SMALL: u64 = 64 << 10;
/// What those who have proved nothing may hold together, in bytes: whoever comes then proves who it is from its head alone.
const OF_STRANGERS: usize = 16 << 20;
/// What callers may hold together.
const OF_CALLERS: usize = 64 << 20;
/// Large bodies are configured: so many of the largest have room in any case, half of them of one principal.
const LARGEST: usize = 4;

/// What bodies hold that have not arrived.
#[derive(Debug, Default)]
pub(crate) struct Bodies(Mutex<Sums>);

#[derive(Debug, Default)]
struct Sums {
    strangers: usize,
    callers: usize,
    each: HashMap<PrincipalId, usize>,
}

impl Bodies {
    /// Room for the whole body of somebody who has proved nothing, beside its head. None: there is none, or the body may
    /// become larger than anybody's may be.
    pub(super) fn of_stranger(self: &Arc<Self>, headers: &HeaderMap, body: &Incoming) -> Option<Held> {
        let size = body.size_hint().exact().filter(|size| *size <= SMALL)?;
        let size = usize::try_from(size).ok()?;
        let bytes = size + head(headers);
        let mut sums = self.lock();
        if sums.strangers + bytes > OF_STRANGERS {
            return None;
        }
        sums.strangers += bytes;
        drop(sums);
        Some(Held { bodies: Arc::clone(self), whose: None, head: 0, bytes })
    }

    /// The same for a caller, who is counted as it sends.
    pub(super) fn of(self: &Arc<Self>, principal: &PrincipalId, headers: &HeaderMap) -> Held {
        Held { bodies: Arc::clone(self), whose: Some(principal.clone()), head: head(headers), bytes: 0 }
    }

    fn lock(&self) -> MutexGuard<'_, Sums> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bytes of a head, as far as it stays as long as its body.
fn head(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}

/// What one body holds. Dropped when the body has arrived.
#[derive(Debug)]
pub(super) struct Held {
    bodies: Arc<Bodies>,
    /// None: whoever sends it has proved nothing, and all of it was taken at once.
    whose: Option<PrincipalId>,
    head: usize,
    bytes: usize,
}

impl Held {
    /// Counts that the body takes `bytes` from now on, of which it may have `limit`.
    fn grow(&mut self, bytes: usize, limit: usize) -> Result<(), Stop> {
        let Some(principal) = &self.whose else { return Ok(()) };
        let more = (bytes + self.head).saturating_sub(self.bytes);
        let most = OF_CALLERS.max(limit.saturating_mul(LARGEST));
        let mut sums = self.bodies.lock();
        let own = sums.each.get(principal).copied().unwrap_or_default() + more;
        if own > most / 2 {
            return Err(full("too much of what you send has not arrived; try again in 1 s"));
        }
        if sums.callers + more > most {
            return Err(full("too much of what clients send has not arrived; try again in 1 s"));
        }
        sums.callers += more;
        sums.each.insert(principal.clone(), own);
        self.bytes += more;
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.bytes == 0 {
            return;
        }
        let mut sums = self.bodies.lock();
        let Some(principal) = &self.whose else {
            sums.strangers -= self.bytes;
            return;
        };
        sums.callers -= self.bytes;
        if let Some(own) = sums.each.get_mut(principal) {
            *own -= self.bytes;
            if *own == 0 {
                sums.each.remove(principal);
            }
        }
    }
}

fn full(why: &'static str) -> Stop {
    Stop::full("bodies", why).status(StatusCode::TOO_MANY_REQUESTS)
}

/// Reads a body within bounds of size and time.
pub(super) async fn read(body: Incoming, limit: usize, mut held: Held) -> Result<Bytes, Stop> {
    let too_big = || {
        Stop::refused(
            Stage::Receive,
            "too-big",
            error::INVALID_REQUEST,
            format!("the body is larger than {limit} bytes"),
        )
        .status(StatusCode::PAYLOAD_TOO_LARGE)
    };
    if body.size_hint().lower() > limit as u64 {
        return Err(too_big());
    }
    let small = body.size_hint().exact().filter(|size| *size <= SMALL).and_then(|size| usize::try_from(size).ok());
    let mut body = body;
    let reading = pin!(async {
        let mut first = Bytes::new();
        let mut rest = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else {
                return Err(Stop::failed(Stage::Receive, "cut", error::PARSE, "the body is incomplete")
                    .status(StatusCode::BAD_REQUEST));
            };
            let Ok(data) = frame.into_data() else { continue };
            let needed = first.len() + rest.len() + data.len();
            if needed > limit {
                return Err(too_big());
            }
            if first.is_empty() && rest.is_empty() {
                if !body.is_end_stream() {
                    held.grow(needed, limit)?;
                }
                first = data;
                continue;
            }
            if needed > rest.capacity() {
                // Of a small body the size is known, and stays within what it says; others take what they need, twice over.
                let room = small.unwrap_or_else(|| needed.max(rest.capacity() * 2).min(limit)).max(needed);
                held.grow(room, limit)?;
                rest.reserve(room - rest.len());
            }
            if !first.is_empty() {
                rest.extend_from_slice(&std::mem::take(&mut first));
            }
            rest.extend_from_slice(&data);
        }
        Ok(if rest.is_empty() { first } else { rest.freeze() })
    });
    within(BODY, reading).await.unwrap_or_else(|_| {
        Err(Stop::refused(Stage::Receive, "slow", error::INVALID_REQUEST, "the body did not arrive in time")
            .status(StatusCode::REQUEST_TIMEOUT))
    })
}
