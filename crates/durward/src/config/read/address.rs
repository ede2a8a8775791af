//! Addresses that are dialled, judged by the connector itself, which would refuse them later.

use super::super::{fault::Fault, tree::Node};
use egress::{Endpoint, EndpointFault};
use url::{Host, Url};

/// What the connector would have against dialling `url`, which stands at `node`. `whose`: a server, an issuer.
pub(super) fn judge(node: &Node, url: &Url, internal: bool, whose: &str) -> Option<Fault> {
    // A variable was reported: what is said of the rest would only follow from it.
    if node.text().is_some_and(|text| text.contains("${")) {
        return None;
    }
    let own = || format!("if this {whose} is your own, add `internal: true`");
    let fault = |what: &str| Fault::at(&node.span, what);
    if !internal && is_this_machine(url) {
        return Some(fault("this address is private").because("this machine: not reached unless marked").fix(own()));
    }
    Some(match Endpoint::new(url, internal, None).err()? {
        EndpointFault::Blocked { what, never: true, .. } => fault("this address is never reached")
            .because(format!("{what} address"))
            .fix(format!("name the {whose}'s own address")),
        EndpointFault::Blocked { what, never: false, .. } => {
            fault("this address is private").because(format!("{what} address: not reached unless marked")).fix(own())
        }
        EndpointFault::PlainHttp(_) => fault("plain HTTP would carry calls and credentials in the clear")
            .because("`http` on a public network")
            .fix(format!("write `https://…`, or, if the {whose} is on a network of your own, add `internal: true`")),
        other => fault("this address cannot be dialled").because(crate::assemble::chain(&other)),
    })
}

/// Whether the name is one that leads here wherever it is resolved.
fn is_this_machine(url: &Url) -> bool {
    matches!(url.host(), Some(Host::Domain(name)) if name == "localhost" || name.ends_with(".localhost"))
}
