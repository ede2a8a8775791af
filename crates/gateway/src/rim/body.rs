//! Bodies of requests on their way in: how large one may be, how long it may take, and what all of them hold together.
//!
//! What has arrived whole at once is nobody's burden. What waits for its rest is counted, the head with it: for strangers
//! in a share of their own, so that they are in nobody's way, and for callers with a share for each principal.

use crate::{
    deadline::within,
    stop::{Stage, Stop},
};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode, header::EXPECT};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use mcp::error;
use std::{
    collections::HashMap,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
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
/// How much is passed over of what nobody will read, as a multiple of what is too large.
const PASSED: usize = 16;
/// How long that may take.
const LINGER: Duration = Duration::from_secs(2);
/// The longest head, in bytes.
const HEAD: usize = 64 << 10;

/// What bodies hold that have not arrived.
#[derive(Debug, Default)]
pub(crate) struct Bodies {
    /// Taken by every small body, so without a lock.
    strangers: AtomicUsize,
    /// Taken by bodies that come in pieces.
    callers: Mutex<Sums>,
}

#[derive(Debug, Default)]
struct Sums {
    all: usize,
    each: HashMap<PrincipalId, usize>,
}

impl Bodies {
    /// Room for the whole body of somebody who has proved nothing, beside its head. None: there is none, or the body may
    /// become larger than anybody's may be.
    pub(super) fn of_stranger(self: &Arc<Self>, headers: &HeaderMap, body: &Incoming) -> Option<Held> {
        let size = body.size_hint().exact().filter(|size| *size <= SMALL)?;
        let size = usize::try_from(size).ok()?;
        let bytes = size + head(headers);
        // Given back where there is none: dropped.
        let held = Held { bodies: Arc::clone(self), whose: None, head: 0, bytes, waits: waits(headers) };
        let before = self.strangers.fetch_add(bytes, Ordering::Relaxed);
        (before + bytes <= OF_STRANGERS).then_some(held)
    }

    /// The same for a caller, who is counted as it sends.
    pub(super) fn of(self: &Arc<Self>, principal: &PrincipalId, headers: &HeaderMap) -> Held {
        let (head, waits) = (head(headers), waits(headers));
        Held { bodies: Arc::clone(self), whose: Some(principal.clone()), head, bytes: 0, waits }
    }

    fn lock(&self) -> MutexGuard<'_, Sums> {
        self.callers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bytes of a head, as far as it stays as long as its body.
fn head(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}

/// The client sends its body when it is told to.
fn waits(headers: &HeaderMap) -> bool {
    headers.contains_key(EXPECT)
}

/// What one body holds. Dropped when the body has arrived.
#[derive(Debug)]
pub(super) struct Held {
    bodies: Arc<Bodies>,
    /// None: whoever sends it has proved nothing, and all of it was taken at once.
    whose: Option<PrincipalId>,
    head: usize,
    bytes: usize,
    waits: bool,
}

impl Held {
    /// Counts that the body takes `bytes` from now on, of which it may have `limit`.
    fn grow(&mut self, bytes: usize, limit: usize) -> Result<(), Stop> {
        let Some(principal) = &self.whose else { return Ok(()) };
        let more = (bytes + self.head).saturating_sub(self.bytes);
        let most = OF_CALLERS.max(limit.saturating_add(HEAD).saturating_mul(LARGEST));
        let mut sums = self.bodies.lock();
        let own = sums.each.get(principal).copied().unwrap_or_default() + more;
        if own > most / 2 {
            return Err(full("too much of what you send has not arrived; try again in 1 s"));
        }
        if sums.all + more > most {
            return Err(full("too much of what clients send has not arrived; try again in 1 s"));
        }
        sums.all += more;
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
        let Some(principal) = &self.whose else {
            self.bodies.strangers.fetch_sub(self.bytes, Ordering::Relaxed);
            return;
        };
        let mut sums = self.bodies.lock();
        sums.all -= self.bytes;
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
pub(super) async fn read(mut body: Incoming, limit: usize, mut held: Held) -> Result<Bytes, Stop> {
    let known = body.size_hint().lower() > limit as u64;
    let read = if known {
        Err(too_big(limit))
    } else {
        let reading = pin!(whole(&mut body, limit, &mut held));
        within(BODY, reading).await.unwrap_or_else(|_| Err(slow()))
    };
    let is_too_big = read.as_ref().is_err_and(|stop| stop.status == StatusCode::PAYLOAD_TOO_LARGE);
    let waits = held.waits;
    drop(held);
    if is_too_big && !(known && waits) {
        Box::pin(pass_over(body, limit)).await;
    }
    read
}

async fn whole(body: &mut Incoming, limit: usize, held: &mut Held) -> Result<Bytes, Stop> {
    let size = body.size_hint().exact().and_then(|size| usize::try_from(size).ok());
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
            return Err(too_big(limit));
        }
        if first.is_empty() && rest.is_empty() {
            if !body.is_end_stream() {
                held.grow(needed, limit)?;
            }
            first = data;
            continue;
        }
        if needed > rest.capacity() {
            // Twice what it needs, within what it says of its length: what is said alone takes nobody's room.
            let room = (rest.capacity() * 2).min(size.unwrap_or(limit)).max(needed);
            held.grow(room, limit)?;
            // Of exactly this size: a buffer that grows by itself takes more than was counted.
            let mut larger = BytesMut::with_capacity(room);
            larger.extend_from_slice(&rest);
            rest = larger;
        }
        if !first.is_empty() {
            rest.extend_from_slice(&std::mem::take(&mut first));
        }
        rest.extend_from_slice(&data);
    }
    Ok(if rest.is_empty() { first } else { rest.freeze() })
}

/// Reads what is too large, and keeps nothing of it. A client that is cut off while it still writes learns of a broken
/// connection, and never why.
async fn pass_over(mut body: Incoming, limit: usize) {
    let mut left = limit.saturating_mul(PASSED);
    let passing = pin!(async {
        while let Some(Ok(frame)) = body.frame().await {
            match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
                Some(less) => left = less,
                None => break,
            }
        }
    });
    // Whoever sends more, or slower, is cut off.
    let _ = within(LINGER, passing).await;
}

fn too_big(limit: usize) -> Stop {
    let why = format!("the body is larger than {limit} bytes");
    Stop::refused(Stage::Receive, "too-big", error::INVALID_REQUEST, why).status(StatusCode::PAYLOAD_TOO_LARGE)
}

fn slow() -> Stop {
    Stop::refused(Stage::Receive, "slow", error::INVALID_REQUEST, "the body did not arrive in time")
        .status(StatusCode::REQUEST_TIMEOUT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use vocab::{AgentId, TenantId};

    fn principal(agent: &str) -> PrincipalId {
        PrincipalId {
            tenant: TenantId::default_tenant(),
            agent: AgentId::new(agent).unwrap(),
            user: None,
            issuer: None,
        }
    }

    #[test]
    fn four_of_the_largest_bodies_have_room_half_of_them_of_one_principal() {
        let bodies = Arc::new(Bodies::default());
        let limit = 32 << 20;
        let mut headers = HeaderMap::new();
        headers.insert("x-wide", HeaderValue::from_str(&"x".repeat(60 << 10)).unwrap());
        let held = |whose: &PrincipalId| {
            let mut held = bodies.of(whose, &headers);
            held.grow(limit, limit).map(|()| held)
        };
        let (alice, bob, carol) = (principal("alice"), principal("bob"), principal("carol"));

        let all = [&alice, &alice, &bob, &bob].map(|whose| held(whose).unwrap());
        assert!(held(&alice).is_err() && held(&carol).is_err());

        drop(all);
        assert_eq!(bodies.lock().all, 0);
        assert!(bodies.lock().each.is_empty());
    }
}
