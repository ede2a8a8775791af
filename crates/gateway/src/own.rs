//! Calls of the gateway's own: it starts a process again, or opens a listening stream again, for a session that listens and
//! asks for nothing. Each is judged as the stream that listens is, which is its parent, and leaves a record: for whom, on
//! which server, with which credential, and how it ended.
//!
//! What is asked of servers in the course of a client's call is part of that call, and in its record.

use crate::{
    authenticate::Caller,
    authorize::denied,
    inject::{self, Injected},
    label::Label,
    pipeline::Line,
    server::Server,
    session::Session,
    stop::{Stage, Stop},
    trail::Trail,
};
use http::StatusCode;
use mcp::{Era, error};

/// What it is called in records: what it stands for.
const METHOD: &str = "GET";

/// One of them. Dropped before it is closed, it records itself abandoned.
pub(crate) struct Own {
    trail: Trail,
    /// It was let through once: what is done again in its course is judged again, and not noted.
    begun: bool,
}

impl Own {
    pub(crate) fn begin(line: &Line, session: &Session, server: &Server) -> Self {
        let mut trail = Trail::open(&session.listening_call(), &line.state);
        let facts = trail.facts_mut();
        facts.session = Some(session.digest);
        facts.server = Some(server.name.clone());
        facts.target = Some(Label::of(&server.resource(METHOD).id.name, None));
        Self { trail, begun: false }
    }

    /// What the server is given, if whoever listens may listen to it.
    pub(crate) fn inject(&mut self, line: &Line, caller: &Caller, server: &Server) -> Result<Injected, Stop> {
        let judged = line.snapshot.policies.authorize_open(&caller.subject, METHOD, &[server.resource(METHOD)]);
        let judged = judged.map_err(|refusal| denied(&line.snapshot.policies, refusal, None, Era::Legacy));
        if self.begun {
            return inject::own(&line.state, server, &judged?);
        }
        self.trail.note(Ok(caller.clone()))?;
        let permit = self.trail.note(judged)?;
        self.begun = true;
        self.trail.note(inject::own(&line.state, server, &permit))
    }

    /// How it ended: nobody asks for it any more, or something stopped it.
    pub(crate) fn close(self, end: Result<(), Stop>) {
        match end {
            Ok(()) => self.trail.close_answered(StatusCode::OK),
            Err(stop) => self.trail.close_stopped(&stop),
        }
    }
}

/// The right to hear a server that was heard has ended.
pub(crate) fn withdrawn() -> Stop {
    let why = "the right to this stream was withdrawn";
    Stop::refused(Stage::Authorize, "denied", error::REFUSED_POLICY, why)
}
