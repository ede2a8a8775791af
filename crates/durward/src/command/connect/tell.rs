//! What the person is told, on stderr: each trouble once, until it is over.

use crate::{cli::Exit, command::print::say};
use egress::EgressFault;
use http::StatusCode;
use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};
use tokio::sync::watch;
use url::Url;

/// What was told, and what is known of the gateway.
pub(super) struct Tell {
    /// The address as it may be shown.
    pub(super) gateway: String,
    has_credential: bool,
    is_refused: AtomicBool,
    is_unfit: AtomicBool,
    is_down: AtomicBool,
    was_reached: AtomicBool,
    was_answered: AtomicBool,
    /// How often the gateway took something.
    pub(super) accepted: watch::Sender<u64>,
}

impl Tell {
    pub(super) fn new(url: &Url, socket: Option<&Path>, has_credential: bool) -> Self {
        // SECURITY: a query may carry a credential.
        let mut shown = url.clone();
        shown.set_query(None);
        if has_credential && socket.is_none() && is_readable_on_the_way(url) {
            say(&format!("durward: the key travels to {shown} without encryption; use https"));
        }
        let gateway = match socket {
            Some(socket) => format!("{shown} behind {}", socket.display()),
            None => shown.into(),
        };
        Self {
            gateway,
            has_credential,
            is_refused: AtomicBool::new(false),
            is_unfit: AtomicBool::new(false),
            is_down: AtomicBool::new(false),
            was_reached: AtomicBool::new(false),
            was_answered: AtomicBool::new(false),
            accepted: watch::Sender::new(0),
        }
    }

    /// The gateway answered.
    pub(super) fn reached(&self, status: StatusCode) {
        self.was_reached.store(true, Ordering::Relaxed);
        if self.is_down.swap(false, Ordering::Relaxed) {
            say(&format!("durward: {} answers again", self.gateway));
        }
        if status.is_success() {
            self.accepted.send_modify(|count| *count += 1);
            self.is_refused.store(false, Ordering::Relaxed);
        }
    }

    /// A request of the client's has its answer.
    pub(super) fn answered(&self, status: StatusCode) {
        if status.is_success() {
            self.was_answered.store(true, Ordering::Relaxed);
            self.is_unfit.store(false, Ordering::Relaxed);
        }
    }

    /// What is at its address gives no answer.
    pub(super) fn down(&self, fault: &EgressFault) {
        let may_have_arrived = fault.may_have_arrived();
        // Who was there before is there: it takes its time, or has forgotten this one request.
        if may_have_arrived && fault.is_timeout() && self.was_reached.load(Ordering::Relaxed) {
            return;
        }
        if !self.is_down.swap(true, Ordering::Relaxed) {
            // What may have arrived is not sent again.
            let again = if may_have_arrived { "" } else { " and tries again" };
            say(&format!("durward: {}; durward connect stays{again}", self.unreachable(fault)));
        }
    }

    /// What is at its address answers with something that is no answer: it may be no gateway.
    pub(super) fn unfit(&self, status: StatusCode, what: &str) {
        if !self.is_unfit.swap(true, Ordering::Relaxed) {
            let fix = if self.may_be_elsewhere(status) {
                "; check that this is the address of a gateway, path and all"
            } else {
                ""
            };
            say(&format!("durward: {what}{fix}"));
        }
    }

    /// Whether such an answer may mean that the address is a wrong one: not where it has answered before, and not where it
    /// says something of the request or of itself.
    fn may_be_elsewhere(&self, status: StatusCode) -> bool {
        let is_busy = matches!(
            status,
            StatusCode::REQUEST_TIMEOUT | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::TOO_MANY_REQUESTS
        );
        !is_busy && !status.is_server_error() && !self.was_answered.load(Ordering::Relaxed)
    }

    /// The gateway does not let this caller in.
    pub(super) fn refused(&self, status: StatusCode, why: &str) {
        if !self.is_refused.swap(true, Ordering::Relaxed) {
            say(&format!("durward: {}", self.refusal(status, why)));
        }
    }

    /// Why a request was not sent.
    pub(super) fn unreachable(&self, fault: &EgressFault) -> String {
        format!("cannot reach the gateway at {}: {}", self.gateway, chain(fault))
    }

    /// Why a request was refused, and what to do.
    pub(super) fn refusal(&self, status: StatusCode, why: &str) -> String {
        let gateway = &self.gateway;
        let status = status.as_u16();
        match (status, self.has_credential) {
            (401, false) => format!(
                "{gateway} wants a key, and there is none ({status}: {why}); make one with `durward agent key create NAME` \
                 and give it in the variable DURWARD_KEY, in a file with --key-file, or in the keyring with --keyring"
            ),
            (401, true) => format!(
                "{gateway} does not accept the key ({status}: {why}); it may be revoked, expired, or another gateway's; \
                 make a new one with `durward agent key create NAME`"
            ),
            _ => format!(
                "{gateway} refuses this agent ({status}: {why}); `durward agent list` tells whether it is disabled, \
                 `durward agent key create NAME` makes another's key"
            ),
        }
    }

    /// What the program ends with.
    pub(super) fn exit(&self) -> Exit {
        let is_unfit = self.is_unfit.load(Ordering::Relaxed);
        if self.was_answered.load(Ordering::Relaxed) || *self.accepted.borrow() > 0 && !is_unfit {
            Exit::Done
        } else if self.is_refused.load(Ordering::Relaxed) || is_unfit {
            Exit::Failed
        } else if self.is_down.load(Ordering::Relaxed) && !self.was_reached.load(Ordering::Relaxed) {
            Exit::Unreachable
        } else {
            Exit::Done
        }
    }
}

/// A fault and its causes.
pub(super) fn chain(fault: &EgressFault) -> String {
    let mut text = fault.to_string();
    let mut cause = std::error::Error::source(fault);
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

fn is_readable_on_the_way(url: &Url) -> bool {
    let is_here = match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    url.scheme() == "http" && !is_here
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_others_can_read_on_the_way_is_told() {
        let is_readable = |url: &str| is_readable_on_the_way(&Url::parse(url).unwrap());
        for url in ["http://gate.example/mcp", "http://10.0.0.1:7420/mcp", "http://localhost.example/mcp"] {
            assert!(is_readable(url), "{url}");
        }
        for url in ["https://gate.example/mcp", "http://127.0.0.1:7420/mcp", "http://localhost/mcp", "http://[::1]/mcp"]
        {
            assert!(!is_readable(url), "{url}");
        }
    }

    #[test]
    fn a_gateway_that_takes_its_time_is_not_down() {
        let url = Url::parse("http://127.0.0.1:1/mcp").unwrap();
        let late = |phase| EgressFault::Timeout { host: "a".into(), phase, after: std::time::Duration::ZERO };
        let tell = Tell::new(&url, None, false);
        tell.reached(StatusCode::OK);
        tell.down(&late(egress::Phase::Head));
        assert!(!tell.is_down.load(Ordering::Relaxed));
        tell.down(&late(egress::Phase::Connect));
        assert!(tell.is_down.load(Ordering::Relaxed));
        // Nobody knows that anybody is there.
        let tell = Tell::new(&url, None, false);
        tell.down(&late(egress::Phase::Head));
        assert_eq!(tell.exit(), Exit::Unreachable);
    }

    #[test]
    fn what_was_seen_of_the_gateway_decides_the_exit_code() {
        let url = Url::parse("http://127.0.0.1:1/mcp?token=hunter2").unwrap();
        let tell = || Tell::new(&url, None, true);
        let nothing = tell();
        assert_eq!(nothing.exit(), Exit::Done);
        let down =
            EgressFault::Timeout { host: "a".into(), phase: egress::Phase::Connect, after: std::time::Duration::ZERO };
        nothing.down(&down);
        assert_eq!(nothing.exit(), Exit::Unreachable);
        let refused = tell();
        refused.reached(StatusCode::UNAUTHORIZED);
        refused.refused(StatusCode::UNAUTHORIZED, "no");
        assert_eq!(refused.exit(), Exit::Failed);
        refused.reached(StatusCode::OK);
        refused.refused(StatusCode::UNAUTHORIZED, "revoked");
        assert_eq!(refused.exit(), Exit::Done);
        assert!(!refused.refusal(StatusCode::UNAUTHORIZED, "no").contains("hunter2"));
    }
}
