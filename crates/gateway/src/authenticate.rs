//! First stage: who calls.

use crate::{
    call::Call,
    clock::Moment,
    pipeline::Line,
    snapshot,
    stop::{Stage, Stop},
    trail::{Facts, Noted},
};
use http::{
    HeaderValue, StatusCode,
    header::{RETRY_AFTER, WWW_AUTHENTICATE},
};
use identity::{AuthFault, Credential, Principal};
use policy::Subject;

/// A caller that was let in, as every later stage needs it.
#[derive(Clone)]
pub struct Caller {
    /// The proof.
    pub principal: Principal,
    /// What policy may know of it.
    pub subject: Subject,
}

impl Noted for Caller {
    const STAGE: Stage = Stage::Authenticate;

    fn note(&self, facts: &mut Facts) {
        facts.principal = Some(self.principal.id().clone());
        facts.identity = Some(self.principal.credential_id().clone());
    }
}

impl Line {
    /// Proves who calls. Costs of failure are bounded per source address before any signature is looked at.
    pub(crate) async fn authenticate(&self, call: &Call, arrived: Moment) -> Result<Caller, Stop> {
        let limited = self.snapshot.limits.failed_authentication(call.peer, arrived.ticks).err();
        let refused = |fault: &AuthFault| match &limited {
            // Nothing is said about what was tried.
            Some(limited) => crate::admit::limited(Stage::Authenticate, limited).status(StatusCode::TOO_MANY_REQUESTS),
            None => self.unauthenticated(call, fault),
        };
        let credential = Credential::of(&call.headers).map_err(|fault| refused(&fault))?;
        // A key costs one digest and cannot be guessed: whoever shares an address with a guesser keeps calling.
        if limited.is_some() && credential.is_token() {
            return Err(refused(&AuthFault::Missing));
        }
        let principal = match self.snapshot.identity.try_authenticate(credential, arrived.at) {
            Some(known) => known,
            None => Box::pin(self.snapshot.identity.authenticate(credential, arrived.at)).await,
        };
        let principal = principal.map_err(|fault| refused(&fault))?;
        let subject = snapshot::subject(&principal);
        Ok(Caller { principal, subject })
    }

    fn unauthenticated(&self, call: &Call, fault: &AuthFault) -> Stop {
        let status = fault.status();
        if status == StatusCode::UNAUTHORIZED {
            self.snapshot.limits.note_failure(call.peer, self.state.clock.ticks());
        }
        let mut stop =
            Stop::refused(Stage::Authenticate, fault.code(), mcp::error::INVALID_REQUEST, fault.public_message())
                .status(status)
                .detail(fault.to_string());
        if status == StatusCode::UNAUTHORIZED
            && let Some(value) = self.challenge(call, fault)
        {
            stop = stop.header(WWW_AUTHENTICATE, value);
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            stop = stop.header(RETRY_AFTER, HeaderValue::from_static("5"));
        }
        stop
    }

    /// The challenge of RFC 6750. Metadata (RFC 9728) is named only where an issuer could give out tokens: with keys
    /// alone a client would begin a sign-in that cannot succeed.
    fn challenge(&self, call: &Call, fault: &AuthFault) -> Option<HeaderValue> {
        let mut parts = Vec::with_capacity(2);
        if let Some(error) = fault.challenge() {
            parts.push(error.to_owned());
        }
        if !self.snapshot.settings.issuers.is_empty() {
            parts.push(format!("resource_metadata=\"{}\"", crate::metadata::address(&self.snapshot.settings, call)));
        }
        let text = if parts.is_empty() { "Bearer".to_owned() } else { format!("Bearer {}", parts.join(", ")) };
        HeaderValue::from_str(&text).ok()
    }
}
