//! First stage: who calls.

use crate::{
    admit,
    call::Call,
    clock::Moment,
    limit::Limited,
    pipeline::Line,
    snapshot,
    stop::{Stage, Stop},
    trail::{Facts, Noted},
};
use http::{
    HeaderValue, StatusCode,
    header::{RETRY_AFTER, WWW_AUTHENTICATE},
};
use identity::{AuthFault, Credential, Principal, Refused};
use policy::Subject;
use std::{ops::Deref, sync::Arc};

/// A caller that was let in, as every later stage needs it. Shared: it is handed on from stage to stage.
#[derive(Clone)]
pub struct Caller(Arc<LetIn>);

/// Who that is.
pub struct LetIn {
    /// The proof.
    pub principal: Principal,
    /// What policy may know of it.
    pub subject: Subject,
}

impl Caller {
    /// Whoever holds this proof. Only [`identity`] makes one.
    pub(crate) fn of(principal: Principal) -> Self {
        Self(Arc::new(LetIn { subject: snapshot::subject(&principal), principal }))
    }
}

impl Deref for Caller {
    type Target = LetIn;

    fn deref(&self) -> &LetIn {
        &self.0
    }
}

impl Noted for Caller {
    const STAGE: Stage = Stage::Authenticate;

    fn note(&self, facts: &mut Facts) {
        facts.principal = Some(self.principal.id().clone());
        facts.identity = Some(self.principal.credential_id().clone());
    }
}

impl Line {
    /// Proves who calls. What guessing costs is bounded per source address, before any signature is looked at; whoever has
    /// shown that a credential is theirs shares the address, not the bound. Who is refused is on record by name, if it was
    /// shown who that is, so many times.
    pub(crate) async fn authenticate(&self, call: &Call, arrived: Moment) -> Result<Caller, Stop> {
        let limited = self.snapshot.limits.failed_authentication(call.peer, arrived.ticks).err();
        let too_often =
            |limited: &Limited| admit::limited(Stage::Authenticate, limited).status(StatusCode::TOO_MANY_REQUESTS);
        // Who brings nothing costs nothing: clients that sign in begin so, and must learn where.
        let refused = |fault: &AuthFault, seen: bool| match &limited {
            _ if seen || *fault == AuthFault::Missing => self.unauthenticated(call, fault),
            // Nothing is said about what was tried.
            Some(limited) => too_often(limited),
            None => {
                self.note_guess(call, fault);
                self.unauthenticated(call, fault)
            }
        };
        let credential = Credential::of(&call.headers).map_err(|fault| refused(&fault, false))?;
        let seen = || self.snapshot.identity.has_seen(credential);
        // A key costs one digest and cannot be guessed, and neither can a token that was good before.
        if let Some(limited) = limited.as_ref().filter(|_| credential.is_token() && !seen()) {
            return Err(too_often(limited));
        }
        let principal = match self.snapshot.identity.try_authenticate(credential, arrived.at) {
            Some(known) => known,
            None => Box::pin(self.snapshot.identity.authenticate(credential, arrived.at)).await,
        };
        let principal = principal.map_err(|Refused { fault, proven }| {
            let was_good = seen();
            let mut stop = refused(&fault, was_good);
            let Some(known) = proven else { return stop };
            // SECURITY: the log grows by what is on record by name, and by no more than so many of one credential. What comes
            // beyond is recorded as that of a stranger is, whose flood has a bound.
            if let Err(limited) = self.snapshot.limits.refusal(&known, arrived.ticks) {
                let whose = format!("{} of agent `{}`: {fault}", known.credential, known.id.agent);
                // Whose token has expired must still learn where to sign in.
                let learns = was_good && stop.status == StatusCode::UNAUTHORIZED;
                return if learns { stop } else { too_often(&limited) }.detail(whose);
            }
            // Of somebody who is known the log may say what nobody else is told: which of many refusals it is.
            stop.detail = Some(fault.to_string());
            stop.proven(Some(known))
        })?;
        Ok(Caller::of(principal))
    }

    fn note_guess(&self, call: &Call, fault: &AuthFault) {
        if fault.status() == StatusCode::UNAUTHORIZED {
            self.snapshot.limits.note_failure(call.peer, self.state.clock.ticks());
        }
    }

    fn unauthenticated(&self, call: &Call, fault: &AuthFault) -> Stop {
        let status = fault.status();
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
