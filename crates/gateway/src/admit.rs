//! The stage of limits: takes from every bucket that applies, or from none.

use crate::{
    authenticate::Caller,
    call::Call,
    clock::Moment,
    forward,
    limit::{Held, Limited, Slot},
    pipeline::Line,
    resolve::{One, Target},
    server::InFlight,
    stop::{Stage, Stop},
    trail::{Facts, Noted},
};
use http::{HeaderName, HeaderValue};
use mcp::error::REFUSED_LIMIT;

/// So many notifications have room on a server that has no room for calls.
const TOLD: usize = 256;

/// Room for one call: given back unless it is spent.
#[must_use]
pub(crate) struct Admitted {
    pub(crate) slot: Option<Slot>,
    pub(crate) held: Option<Held>,
    _in_flight: Option<InFlight>,
}

impl Admitted {
    /// The call leaves: what it took from the limits is used up, what it holds is held until it ends.
    pub(crate) fn spend(&mut self) {
        self.held = self.slot.take().map(Slot::spend);
    }
}

impl Noted for Admitted {
    const STAGE: Stage = Stage::Limit;

    fn note(&self, _: &mut Facts) {}
}

impl Line {
    /// Takes one call's worth from every limit that applies to caller and target.
    pub(crate) fn admit(&self, caller: &Caller, call: &Call, target: &Target, now: Moment) -> Result<Admitted, Stop> {
        let Some(one) = target.one() else {
            return Ok(Admitted { slot: None, held: None, _in_flight: None });
        };
        // An answer belongs to a call that was counted and waits for it: what that call holds must not be in its way. Nobody
        // gets in so: each question is answered once, and what answers none was refused when it was resolved.
        if one.answers.is_some() {
            return Ok(Admitted { slot: None, held: None, _in_flight: None });
        }
        // A stream that waits for what a server may say is no call in flight: connections bound those. What takes a call
        // back, once, has that call's place: nobody fills it with anything else.
        let is_free = call.listens() || forward::takes_back(one, call);
        let in_flight = if is_free { None } else { Some(enter(one, call)?) };
        // Open methods and notifications count against the caller's attempts, not against a tool.
        let slot = match one.action {
            None => None,
            Some(action) => Some(
                self.snapshot
                    .limits
                    .admit(caller.principal.id(), action, &one.resource.id, now.ticks)
                    .map_err(|limited| self::limited(Stage::Limit, &limited))?,
            ),
        };
        Ok(Admitted { slot, held: None, _in_flight: in_flight })
    }

    /// Counts an authenticated request, whatever will become of it.
    pub(crate) fn attempt(&self, caller: &Caller, now: Moment) -> Result<(), Stop> {
        self.snapshot
            .limits
            .attempt(caller.principal.id(), now.ticks)
            .map_err(|limited| self::limited(Stage::Limit, &limited))
    }
}

/// What is told finds room where calls have taken all there is. A call does not become one by leaving out its id.
fn enter(one: &One, call: &Call) -> Result<InFlight, Stop> {
    let server = &one.server;
    let beyond = if call.wants_answer() || one.action.is_some() { 0 } else { TOLD };
    server.state.enter(server.calls_in_flight.saturating_add(beyond)).ok_or_else(|| {
        Stop::full("busy", format!("server `{}` has too many calls in flight; try again in 1 s", server.name))
    })
}

/// The refusal that a limit makes, with the time to wait in the error and in the headers of the IETF draft
/// "`RateLimit` header fields for HTTP".
pub(crate) fn limited(stage: Stage, limited: &Limited) -> Stop {
    let seconds = limited.retry_in.as_millis().div_ceil(1000).max(1);
    let seconds = u64::try_from(seconds).unwrap_or(u64::MAX);
    let mut stop = Stop::refused(
        stage,
        "rate",
        REFUSED_LIMIT,
        format!("limit `{}` is reached; try again in {seconds} s", limited.rule),
    )
    .again_in(seconds)
    .data("limit", limited.rule.clone());
    for (name, text) in limited.headers().into_iter().flatten() {
        if let Ok(value) = HeaderValue::from_str(&text) {
            stop = stop.header(HeaderName::from_static(name), value);
        }
    }
    stop
}
