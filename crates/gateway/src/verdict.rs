//! Which eras a server was seen to speak, when, and whether what it answers still fits that.
//!
//! A verdict belongs to a server and the credential it was asked with. It is made by a look, dated, and doubted when an
//! answer contradicts it: then the server is looked at again. Never repeats a request and never decides what passes.

use crate::{
    pipeline::Line,
    server::Server,
    state::State,
    upstream::{Arrival, UpstreamFault},
};
use http::StatusCode;
use mcp::{Era, error};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use vocab::Timestamp;

/// How long an answer counts where the server could not be asked again.
const KEPT: Duration = Duration::from_hours(1);
/// How long after a look that was caused by a client the next one may be.
pub(crate) const PAUSE: Duration = Duration::from_secs(2);

/// A refusal is no longer than this, in bytes: what is longer is not read for it.
const SHORT: usize = 2048;
/// What SDKs of the legacy era answer before `initialize`.
const NOT_READY: i64 = -32000;

/// Which eras a server was seen to speak.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it answers `initialize`.
    pub legacy: Option<Seen>,
    /// Whether it answers `server/discover`.
    pub modern: Option<Seen>,
    /// The credential that it was asked with. Stays in memory.
    pub(crate) credential: u64,
}

/// What a server answered when it was asked in one era.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Whether it speaks it.
    pub speaks: bool,
    /// When it was asked.
    pub at: Timestamp,
}

impl Verdict {
    /// What is known after it was asked again; none of `legacy` and `modern` says that it could not be asked. What it
    /// answered before counts on for a while then, under its own date, unless it was asked with another credential.
    pub(crate) fn after(self, legacy: Option<bool>, modern: Option<bool>, credential: u64, now: Timestamp) -> Self {
        let same = self.credential == credential;
        let now_or_before = |speaks: Option<bool>, before: Option<Seen>| match speaks {
            Some(speaks) => Some(Seen { speaks, at: now }),
            None => before.filter(|seen| same && now.since(seen.at) < KEPT),
        };
        Self { legacy: now_or_before(legacy, self.legacy), modern: now_or_before(modern, self.modern), credential }
    }

    /// What it answered in an era.
    pub const fn of(&self, era: Era) -> Option<Seen> {
        match era {
            Era::Legacy => self.legacy,
            Era::Modern => self.modern,
        }
    }
}

/// How a request was answered that a server was asked in one era.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answered {
    /// The status; a process answers with 200.
    pub(crate) status: StatusCode,
    /// The code of the error in the body, if that is one of JSON-RPC.
    pub(crate) code: Option<i64>,
    /// The request named a session: 404 is about that.
    pub(crate) in_session: bool,
}

impl Answered {
    /// Whether servers that speak `era` answer so.
    fn fits(self, era: Era) -> bool {
        let doubtful =
            matches!(self.status, StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED);
        if !doubtful {
            return true;
        }
        match (era, self.code) {
            // These words the legacy era does not have.
            (Era::Legacy, Some(error::HEADER_MISMATCH | error::UNSUPPORTED_VERSION)) => false,
            (Era::Legacy, _) => self.in_session,
            (Era::Modern, Some(error::METHOD_NOT_FOUND)) => self.status == StatusCode::NOT_FOUND,
            (
                Era::Modern,
                Some(
                    error::PARSE
                    | error::INVALID_PARAMS
                    | error::INTERNAL
                    | error::HEADER_MISMATCH
                    | error::MISSING_CAPABILITY,
                ),
            ) => true,
            // A session is missing, the version is none, nothing is there: so answer those who do not know the era.
            (Era::Modern, _) => false,
        }
    }
}

impl State {
    /// Holds an HTTP answer against what is known. What succeeded fits; only the rest is read.
    pub(crate) fn doubt(self: &Arc<Self>, server: &Server, era: Era, in_session: bool, arrival: &Arrival) {
        let status = arrival.status();
        if status.is_success() {
            return;
        }
        let code = match arrival {
            Arrival::Whole { body, .. } if body.len() <= SHORT => code_of(body),
            Arrival::Whole { .. } | Arrival::Bare { .. } | Arrival::Stream { .. } => None,
        };
        if !(Answered { status, code, in_session }).fits(era) {
            self.look_at_misfit(server, era);
        }
    }

    /// Holds what a process of the modern era answered against that. Old servers end on what comes before `initialize`.
    pub(crate) fn doubt_process(self: &Arc<Self>, server: &Server, arrival: &Result<Arrival, UpstreamFault>) {
        let fits = match arrival {
            Ok(Arrival::Whole { body, .. }) if body.len() <= SHORT => {
                !matches!(code_of(body), Some(error::INVALID_REQUEST | error::UNSUPPORTED_VERSION | NOT_READY))
            }
            Ok(Arrival::Whole { .. } | Arrival::Bare { .. } | Arrival::Stream { .. }) => true,
            Err(fault) => !matches!(fault, UpstreamFault::Cut(_)),
        };
        if !fits {
            self.look_at_misfit(server, Era::Modern);
        }
    }

    /// An answer of a server is none of `era`, which it was seen to speak, or may: it is looked at again, in the background.
    /// What clients can cause this way happens once in [`PAUSE`].
    pub(crate) fn look_at_misfit(self: &Arc<Self>, server: &Server, era: Era) {
        if server.era.is_some() || server.speaks(era) == Some(false) {
            return;
        }
        let line = self.line();
        let Some(server) = line.servers().find(|known| Arc::ptr_eq(&known.state, &server.state)).cloned() else {
            return;
        };
        // What a look hears itself is no reason for another.
        if !server.state.is_looked_at() && line.may_look_for_a_client(&server) {
            tracing::info!(server = %server.name, era = era.as_str(), "the server answers as if it did not speak this era; it is asked again");
            line.look_after(&server);
        }
    }
}

impl Line {
    /// Whether a look may begin that a client causes: what clients ask for must not hammer a server.
    pub(crate) fn may_look_for_a_client(&self, server: &Server) -> bool {
        let now = self.state.clock.ticks();
        let last = server.state.missed_at.load(Ordering::Acquire);
        let pause = u64::try_from(PAUSE.as_micros()).unwrap_or(u64::MAX);
        let due = last == 0 || now.saturating_sub(last) > pause;
        due && server.state.missed_at.compare_exchange(last, now.max(1), Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// What a server was seen to speak was seen with another credential than the one it is given now: it is asked again.
    pub(crate) fn fits_credential(&self, server: &Arc<Server>, credential: u64) {
        let asked = server.state.asked_with.load(Ordering::Relaxed);
        if asked != 0 && asked != credential {
            // Once for each credential, whatever comes of it.
            let claimed =
                server.state.asked_with.compare_exchange(asked, credential, Ordering::Relaxed, Ordering::Relaxed);
            if claimed.is_ok() {
                self.look_with_others(server);
            }
        }
    }
}

/// The code of the error in a body.
pub(crate) fn code_of(body: &[u8]) -> Option<i64> {
    mcp::value(body).ok()?.get("error")?.get("code")?.as_i64()
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(seconds)
    }

    #[test]
    fn what_could_not_be_asked_counts_on_for_an_hour_under_its_own_date() {
        let first = Verdict::default().after(Some(true), Some(false), 7, at(0));
        let later = first.after(Some(true), None, 7, at(3599));
        assert_eq!(later.modern, Some(Seen { speaks: false, at: at(0) }));
        assert_eq!(later.legacy, Some(Seen { speaks: true, at: at(3599) }));
        assert_eq!(later.after(None, None, 7, at(3600)).modern, None);
        // Whom another credential was shown may be told something else.
        assert_eq!(first.after(Some(true), None, 8, at(1)).modern, None);
    }

    #[test]
    fn an_answer_fits_the_era_or_it_does_not() {
        for (era, status, code, in_session, fits) in [
            (Era::Legacy, 400, Some(-32022), true, false), // a server of 2026 says what it speaks
            (Era::Legacy, 400, Some(-32020), true, false), // … or misses its headers
            (Era::Legacy, 404, Some(-32601), false, false), // … or knows no `initialize`
            (Era::Legacy, 405, None, false, false),
            (Era::Legacy, 404, None, true, true), // the session is gone
            (Era::Legacy, 200, Some(-32601), false, true),
            (Era::Legacy, 503, None, false, true),
            (Era::Modern, 400, Some(-32000), false, false), // "no valid session ID" of SDKs
            (Era::Modern, 400, Some(-32600), false, false),
            (Era::Modern, 400, Some(-32022), false, false),
            (Era::Modern, 404, None, false, false),
            (Era::Modern, 404, Some(-32601), false, true), // a method that it does not have
            (Era::Modern, 400, Some(-32602), false, true),
            (Era::Modern, 400, Some(-32021), false, true),
            (Era::Modern, 500, None, false, true),
        ] {
            let answered = Answered { status: StatusCode::from_u16(status).unwrap(), code, in_session };
            assert_eq!(answered.fits(era), fits, "{era:?} {answered:?}");
        }
    }
}
