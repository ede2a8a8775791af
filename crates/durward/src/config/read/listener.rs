//! Where the gateway listens, and what it believes about who connects.

use super::{
    super::{
        fault::{Fault, Faults},
        quantity,
        settings::{Admin, Listen, Settings, SocketAccess, Tls},
        tree::Node,
        veil,
    },
    at, parsed, switch, text, texts, url,
};
use std::path::Path;
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
        if places.contains(&place) && place.address().is_none_or(|address| address.port() != 0) {
            faults.push(Fault::at(&member.span, "this place is named twice").fix("keep one of them"));
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

/// Whether others can reach a place over the network.
fn is_open(place: &Listen) -> bool {
    place.address().is_some_and(|address| !address.ip().is_loopback())
}

/// Reports a listener that others can reach and read.
fn exposure(root: &Node, settings: &Settings, faults: &mut Faults) {
    let secure = settings.tls.is_some() || settings.public_url.as_ref().is_some_and(|url| url.scheme() == "https");
    let open = |node: &&Node| node.text().and_then(|text| text.parse().ok()).is_some_and(|place| is_open(&place));
    for node in root.get("listen").map(Node::each).unwrap_or_default().iter().filter(open) {
        if secure || settings.danger_plain_http {
            break;
        }
        faults.push(
                Fault::at(&node.span, "keys and calls would cross the network in the clear")
                    .because("not loopback, no `tls`, and no `https` in `public_url`")
                    .fix("name a certificate under `tls`, put a proxy with TLS in front and name its address in `public_url`, listen on 127.0.0.1, or, if you accept it, set `danger_plain_http: true`"),
        );
    }
    if let Some(node) = root.get("danger_plain_http").filter(|_| settings.danger_plain_http) {
        let (what, why) = if secure || !settings.listen.iter().any(is_open) {
            ("`danger_plain_http` has no use here", "the listener is on loopback or behind TLS")
        } else {
            ("keys and calls cross the network in the clear", "`danger_plain_http` is set")
        };
        faults.push(Fault::at(&node.span, what).because(why).warning());
    }
    if let Some(node) = at(root, &["admin", "listen"]) {
        if settings.admin.listen.port() != 0
            && settings.listen.iter().any(|place| place.address() == Some(settings.admin.listen))
        {
            faults.push(
                Fault::at(&node.span, "agents and management need an address each")
                    .because("`listen` has this one")
                    .fix("choose another port"),
            );
        } else if !settings.admin.listen.ip().is_loopback() {
            faults.push(
                Fault::at(&node.span, "management can be reached from the network")
                    .because("admin keys cross it in the clear")
                    .fix("listen on 127.0.0.1, or put a proxy with TLS in front")
                    .warning(),
            );
        }
    }
    if let (Some(node), Some(url)) = (root.get("public_url"), &settings.public_url)
        && url.query().is_some()
    {
        faults.push(Fault::at(&node.span, "`public_url` has a query").fix("remove everything from `?` on"));
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
    if let Some(node) = root.get("public_url")
        && settings.listen.iter().any(is_open)
        && settings.tls.is_none()
        && settings.trusted_proxies.is_empty()
        && !settings.danger_plain_http
    {
        faults.push(
            Fault::at(&node.span, "no proxy is trusted, so its address will stand for every client's")
                .fix("name the proxy's addresses in `trusted_proxies`")
                .warning(),
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
