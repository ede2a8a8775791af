//! The stage of limits: takes from every bucket that applies, or from none.

use crate::{
    authenticate::Caller,
    limit::{Held, Limited, Slot},
    pipeline::Line,
    resolve::Target,
    server::InFlight,
    stop::{Stage, Stop},
    trail::{Facts, Noted},
};
use http::{HeaderName, HeaderValue, header::RETRY_AFTER};
use mcp::error::REFUSED_LIMIT;

/// Room for one call: given back unless it is spent.
#[must_use]
pub struct Admitted {
    pub(crate) slot: Option<Slot>,
    pub(crate) held: Option<Held>,
    pub(crate) in_flight: Option<InFlight>,
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
    pub(crate) fn admit(&self, caller: &Caller, target: &Target) -> Result<Admitted, Stop> {
        let Some(one) = target.one() else {
            return Ok(Admitted { slot: None, held: None, in_flight: None });
        };
        let server = &one.server;
        let in_flight = server
            .state
            .enter(server.calls_in_flight)
            .ok_or_else(|| crate::upstream::UpstreamFault::Busy(server.calls_in_flight).stop(&server.name))?;
        // Open methods and notifications count against the caller's attempts, not against a tool.
        let slot = match one.action {
            None => None,
            Some(_) => Some(
                self.snapshot
                    .limits
                    .admit(caller.principal.id(), &one.resource.id, self.state.clock.ticks())
                    .map_err(|limited| self::limited(Stage::Limit, &limited))?,
            ),
        };
        Ok(Admitted { slot, held: None, in_flight: Some(in_flight) })
    }
}

/// The refusal that a limit makes, with the time to wait in the error and in the headers of the IETF draft
/// "RateLimit header fields for HTTP".
pub(crate) fn limited(stage: Stage, limited: &Limited) -> Stop {
    let seconds = limited.retry_in.as_millis().div_ceil(1000).max(1);
    let seconds = u64::try_from(seconds).unwrap_or(u64::MAX);
    let mut stop = Stop::refused(
        stage,
        "rate",
        REFUSED_LIMIT,
        format!("limit `{}` is reached; try again in {seconds} s", limited.rule),
    )
    .data("retryAfter", seconds)
    .data("limit", limited.rule.to_string())
    .header(RETRY_AFTER, HeaderValue::from(seconds));
    for (name, text) in limited.headers() {
        if let Ok(value) = HeaderValue::from_str(&text) {
            stop = stop.header(HeaderName::from_static(name), value);
        }
    }
    stop
}
