//! Between a client and a server that speak different eras. What is said is translated in `mcp::bridge`; here lives
//! what lasts longer than a message: rounds of questions, streams, subscriptions.
//!
//! A bridge is the last part of the line, behind every stage that can say no: what it sends was decided as any other
//! call, and what comes back is released as any other answer.

pub(crate) mod downward;
pub(crate) mod upward;

use crate::{
    authenticate::Caller,
    pipeline::Line,
    server::Server,
    stop::{Stage, Stop},
    upstream::UpstreamFault,
};
use mcp::{Era, bridge::BridgeFault};
use vocab::Action;

/// What a bridge does with a call of this era to this server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crossing {
    /// Both speak the same.
    None,
    /// A legacy client before a modern server.
    Upward,
    /// A modern client before a legacy server.
    Downward,
}

impl Crossing {
    /// What leads from a client of `era` to this server, as far as is known now; none where nothing does.
    pub(crate) fn to(era: Era, server: &Server) -> Option<Self> {
        match (server.speaks(era), era) {
            (Some(true) | None, Era::Legacy | Era::Modern) => Some(Self::None),
            (Some(false), Era::Legacy) => server.bridged.then_some(Self::Upward),
            (Some(false), Era::Modern) => server.bridged.then_some(Self::Downward),
        }
    }

    /// What lies between a client of `era` and this server.
    pub(crate) fn between(era: Era, server: &Server) -> Self {
        Self::to(era, server).unwrap_or(Self::None)
    }
}

impl Crossing {
    /// The era that the server is spoken to in, where it is not the client's.
    pub(crate) const fn into_era(self) -> Option<Era> {
        match self {
            Self::None => None,
            Self::Upward => Some(Era::Modern),
            Self::Downward => Some(Era::Legacy),
        }
    }
}

/// The era in which a server is spoken to for a client of `era`.
pub(crate) fn spoken(era: Era, server: &Server) -> Era {
    Crossing::between(era, server).into_era().unwrap_or(era)
}

/// Whether nothing leads from a client of `era` to this server.
pub(crate) fn is_out_of_reach(era: Era, server: &Server) -> bool {
    Crossing::to(era, server).is_none()
}

/// The capabilities of a client of which a server is not told, for no rule lets it ask that.
pub(crate) fn unaskable(line: &Line, caller: &Caller, server: &Server) -> Vec<&'static str> {
    let asked =
        [("elicitation", Action::ServerElicit), ("roots", Action::ServerRoots), ("sampling", Action::ServerSample)];
    let is_denied = |action| !line.snapshot.policies.reaches_with(&caller.subject, action, server.root());
    asked.into_iter().filter(|(_, action)| is_denied(*action)).map(|(name, _)| name).collect()
}

/// What becomes of a client's message that cannot be translated: no server is asked, so none has failed.
pub(crate) fn malformed(fault: &BridgeFault) -> UpstreamFault {
    let why = fault.to_string();
    UpstreamFault::Stopped(Stop::refused(Stage::Forward, "arguments", mcp::error::INVALID_PARAMS, why))
}
