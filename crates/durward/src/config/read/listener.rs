//! Where the gateway listens, and what it believes about who connects.

use super::{
    super::{
        fault::{Fault, Faults},
        quantity,
        settings::{Admin, Listen, Settings, SocketAccess, Tls},
        tree::{Node, Span},
        veil,
    },
    at, parsed, switch, text, texts, url,
};
use std::{net::IpAddr, path::Path};
use url::Url;

/// Reads the listeners.
pub(super) fn read(root: &Node, base: &Path, settings: &mut Settings, faults: &mut Faults) {
    places(root, base, settings, faults);
    settings.socket_access = match text(root, "socket_access") {
        Some("group") => SocketAccess::Group,
        Some("everyone") => SocketAccess::Everyone,
        _ => SocketAccess::Owner,
    };
    settings.tls = root.get("tls").and_then(|tls| {
        Some(Tls { certificate: base.join(text(tls, "certificate")?), key: base.join(text(tls, "key")?) })
    });
    settings.public_url = url(root, "public_url");
    settings.danger_plain_http = switch(root, "danger_plain_http");
    if let Some(listen) = root.get("admin").and_then(|admin| parsed(admin, "listen")) {
        settings.admin = Admin { listen };
    }
    settings.trusted_proxies =
        texts(root, "trusted_proxies").iter().filter_map(|text| quantity::network(text).ok()).collect();
    settings.proxy_protocol = switch(root, "proxy_protocol");
    settings.origins = texts(root, "origins");
    settings.hosts = texts(root, "hosts");
    exposure(root, settings, faults);
    management(root, settings, faults);
    proxies(root, settings, faults);
    scheme(root, settings, faults);
    names(root, faults);
}

/// Reads the places, which must be at least one, and each of them once.
fn places(root: &Node, base: &Path, settings: &mut Settings, faults: &mut Faults) {
    let Some(node) = root.get("listen") else { return };
    let mut places: Vec<Listen> = Vec::new();
    for member in node.each() {
        let place = match member.text().and_then(|text| text.parse().ok()) {
            Some(Listen::Unix(path)) => Listen::Unix(base.join(path)),
            Some(place) => place,
            None => continue,
        };
        // Of two that it meets, one that it meets on every system.
        let met = places.iter().filter(|earlier| meet(earlier, &place)).min_by_key(|earlier| mixed(earlier, &place));
        if let Some(earlier) = met {
            faults.push(if *earlier == place {
                Fault::at(&member.span, "this place is named twice").fix("keep one of them")
            } else {
                both(&member.span, "two places of `listen` are one", earlier, &place)
            });
        }
        places.push(place);
    }
    if !places.is_empty() {
        settings.listen = places;
    }
    if let Some(node) = root.get("socket_access")
        && settings.listen.iter().all(|place| place.address().is_some())
    {
        faults.push(
            Fault::at(&node.span, "`socket_access` has no use here")
                .because("no socket is listened on")
                .fix("name one in `listen`: `unix:/run/durward/agents.sock`")
                .warning(),
        );
    }
}

/// Whether two places have one in common, which only one listener can have.
fn meet(one: &Listen, other: &Listen) -> bool {
    match (one.address(), other.address()) {
        (Some(one), Some(other)) => gateway::rim::meet(one, other),
        (None, _) | (_, None) => one == other,
    }
}

/// The same address, however it is written: `[::ffff:127.0.0.1]` is 127.0.0.1.
fn plain(place: &Listen) -> Option<IpAddr> {
    place.address().map(|address| address.ip().to_canonical())
}

/// Whether two that meet do so because `[::]` is IPv4, too: some systems keep it from that.
fn mixed(one: &Listen, other: &Listen) -> bool {
    let is_v4 = |place: &Listen| place.address().map(|address| address.is_ipv4());
    is_v4(one) != is_v4(other) && plain(one).map(|ip| ip.is_ipv4()) != plain(other).map(|ip| ip.is_ipv4())
}

/// Reports two places that meet without being the same.
fn both(span: &Span, what: &str, one: &Listen, other: &Listen) -> Fault {
    let fault = Fault::at(span, what).fix("keep one of them, or choose another port");
    if mixed(one, other) {
        let why = "`[::]` is this port of IPv4, too, unless the system keeps them apart (`net.ipv6.bindv6only`)";
        return fault.because(why).warning();
    }
    if plain(one) == plain(other) {
        return fault.because(format!("it is `{one}`, written in another way"));
    }
    fault.because(format!("`{one}` is taken already, and one of the two is this port on every address"))
}

/// Whether others can reach a place over the network.
fn is_open(place: &Listen) -> bool {
    plain(place).is_some_and(|address| !address.is_loopback())
}

/// Reports a listener that others can reach and read.
fn exposure(root: &Node, settings: &Settings, faults: &mut Faults) {
    let is_https = settings.public_url.as_ref().is_some_and(|url| url.scheme() == "https");
    // SECURITY: an address alone says nothing of who speaks TLS there.
    let secure = settings.tls.is_some() || (is_https && !settings.trusted_proxies.is_empty());
    let open = |node: &&Node| node.text().and_then(|text| text.parse().ok()).is_some_and(|place| is_open(&place));
    for node in root.get("listen").map(Node::each).unwrap_or_default().iter().filter(open) {
        if secure || settings.danger_plain_http {
            break;
        }
        let (why, fix) = if is_https {
            (
                "not loopback, no `tls`, and no proxy is trusted that could have it",
                "name the addresses of the proxy with TLS in `trusted_proxies`, or a certificate under `tls`, listen on 127.0.0.1, or, if you accept it, set `danger_plain_http: true`",
            )
        } else {
            (
                "not loopback, no `tls`, and no `https` in `public_url`",
                "name a certificate under `tls`, put a proxy with TLS in front and name what clients dial in `public_url` and the proxy in `trusted_proxies`, listen on 127.0.0.1, or, if you accept it, set `danger_plain_http: true`",
            )
        };
        let fault = Fault::at(&node.span, "keys and calls would cross the network in the clear");
        faults.push(fault.because(why).fix(fix));
    }
    if let Some(node) = root.get("danger_plain_http").filter(|_| settings.danger_plain_http) {
        let (what, why) = if secure || !settings.listen.iter().any(is_open) {
            ("`danger_plain_http` has no use here", "the listener is on loopback or behind TLS")
        } else {
            ("keys and calls cross the network in the clear", "`danger_plain_http` is set")
        };
        faults.push(Fault::at(&node.span, what).because(why).warning());
    }
    if let (Some(node), Some(url)) = (root.get("public_url"), &settings.public_url)
        && url.query().is_some()
    {
        faults.push(Fault::at(&node.span, "`public_url` has a query").fix("remove everything from `?` on"));
    }
}

/// Reports a management listener that takes a place of the agents, or that others can reach.
fn management(root: &Node, settings: &Settings, faults: &mut Faults) {
    const TAKEN: &str = "agents and management need an address each";
    let admin = Listen::Network(settings.admin.listen);
    let written = at(root, &["admin", "listen"]);
    let met = settings.listen.iter().filter(|place| meet(place, &admin)).min_by_key(|place| mixed(place, &admin));
    match (written, met) {
        (Some(node), Some(place)) if *place == admin => {
            faults.push(Fault::at(&node.span, TAKEN).because("`listen` has this one").fix("choose another port"));
        }
        (Some(node), Some(place)) => faults.push(both(&node.span, TAKEN, place, &admin).fix("choose another port")),
        (None, Some(place)) => {
            let here = |node: &&Node| node.text().and_then(|text| text.parse().ok()).as_ref() == Some(place);
            let Some(node) = root.get("listen").and_then(|listen| listen.each().iter().find(here)) else { return };
            let fault = Fault::at(&node.span, TAKEN)
                .because(format!("management listens on `{admin}` unless `admin: {{ listen: … }}` says otherwise"))
                .fix("choose another port, here or there");
            faults.push(if mixed(place, &admin) { fault.warning() } else { fault });
        }
        (Some(node), None) if is_open(&admin) => faults.push(
            Fault::at(&node.span, "management can be reached from the network")
                .because("admin keys cross it in the clear")
                .fix("listen on 127.0.0.1, or put a proxy with TLS in front")
                .warning(),
        ),
        (_, None) => {}
    }
}

/// Warns about an address that clients dial in the clear although it speaks TLS.
fn scheme(root: &Node, settings: &Settings, faults: &mut Faults) {
    if let (Some(node), Some(url), Some(_)) = (root.get("public_url"), &settings.public_url, &settings.tls)
        && url.scheme() == "http"
    {
        faults.push(
            Fault::at(&node.span, "clients are told to dial this without TLS")
                .because("`tls` is configured")
                .fix("write `https`")
                .warning(),
        );
    }
}

fn proxies(root: &Node, settings: &Settings, faults: &mut Faults) {
    if let Some(node) = root.get("proxy_protocol")
        && settings.proxy_protocol
        && settings.trusted_proxies.is_empty()
    {
        faults.push(
            Fault::at(&node.span, "every connection would be closed")
                .because("no proxy is trusted to say who connects")
                .fix("name the proxy's addresses in `trusted_proxies`"),
        );
    }
    let everyone = root.get("trusted_proxies").map(Node::each).unwrap_or_default().iter();
    for node in everyone.filter(|node| node.text().is_some_and(|text| text.ends_with("/0"))) {
        faults.push(
            Fault::at(&node.span, "anyone could claim any address")
                .because("this range is everyone")
                .fix("name the proxies"),
        );
    }
}

/// Reports origins and hosts that no header can equal.
fn names(root: &Node, faults: &mut Faults) {
    for node in root.get("origins").map(Node::each).unwrap_or_default() {
        let Some(text) = node.text() else { continue };
        let good =
            Url::parse(text).is_ok_and(|url| url.origin().is_tuple() && url.origin().ascii_serialization() == text);
        if !good && !text.contains("${") {
            let what = format!("{} is not an origin", veil::quote(text));
            faults.push(
                Fault::at(&node.span, what)
                    .fix("write scheme, host and, where it is not the usual one, port, without a slash: `https://app.example.com`"),
            );
        }
    }
    for node in root.get("hosts").map(Node::each).unwrap_or_default() {
        let Some(text) = node.text() else { continue };
        let good = text.parse::<http::uri::Authority>().is_ok_and(|authority| !authority.as_str().contains('@'));
        if (!good || text.contains('*')) && !text.contains("${") {
            let what = format!("{} is not a host", veil::quote(text));
            faults.push(
                Fault::at(&node.span, what).fix("write a name and, where clients send one, a port: `mcp.example.com`"),
            );
        }
    }
}
