//! Token issuers.

use super::{
    super::{
        fault::{Fault, Faults},
        settings::{Issuer, Jwks},
        tree::Node,
    },
    address, duration, names, one_of, parsed, switch, text, texts, url,
};
use identity::{Algorithm, ClaimPath};
use std::{path::Path, time::Duration};
use url::Url;

/// The most that clocks may differ.
const MOST_LEEWAY: Duration = Duration::from_mins(5);

/// Reads every issuer that is complete.
pub(super) fn read(root: &Node, base: &Path, public_url: Option<&Url>, faults: &mut Faults) -> Vec<Issuer> {
    let mut issuers: Vec<Issuer> = Vec::new();
    for node in root.get("issuers").map(Node::each).unwrap_or_default() {
        let internal = switch(node, "internal");
        let jwks = jwks(node, base, faults);
        let asked = match &jwks {
            Jwks::Discovery => node.get("url").zip(url(node, "url")),
            Jwks::Url(url) => node.get("jwks").and_then(|jwks| jwks.get("url")).zip(Some(url.clone())),
            Jwks::File(_) => None,
        };
        match asked {
            Some((node, url)) if url.scheme() == "http" && !internal => faults.push(
                Fault::at(&node.span, "keys over plain HTTP can be replaced on their way")
                    .because("whoever does that signs tokens")
                    .fix("write `https://…`, or, on a network of your own, add `internal: true`"),
            ),
            Some((node, url)) => faults.found.extend(address::judge(node, &url, internal, "issuer")),
            None => {}
        }
        let audiences = texts(node, "audience");
        if let Some(audience) = node.get("audience") {
            audience_faults(audience, &audiences, public_url, faults);
        }
        if let Some(at) = node.get("leeway")
            && duration(node, "leeway").is_some_and(|leeway| leeway > MOST_LEEWAY)
        {
            faults.push(Fault::at(&at.span, "clocks do not differ that much").fix("write at most `5m`"));
        }
        let Some(place) = node.get("url") else { continue };
        let Some(written) = place.text() else { continue };
        if issuers.iter().any(|issuer| issuer.url == written) {
            faults.push(
                Fault::at(&place.span, "this issuer is given twice")
                    .because("the first one counts")
                    .fix("merge them; `audience` takes a list"),
            );
        }
        let claim = |key| parsed::<ClaimPath>(node, key);
        let (false, Some(agent)) = (audiences.is_empty(), claim("agent")) else { continue };
        issuers.push(Issuer {
            url: written.to_owned(),
            audiences,
            jwks,
            algorithms: algorithms(node),
            agent,
            user: claim("user"),
            roles: claim("roles"),
            groups: claim("groups"),
            scopes: claim("scopes").or_else(|| "claim:scope".parse().ok()),
            token_types: token_types(node),
            leeway: duration(node, "leeway").unwrap_or(Duration::from_secs(30)),
            internal,
        });
    }
    issuers
}

fn audience_faults(node: &Node, audiences: &[String], public_url: Option<&Url>, faults: &mut Faults) {
    if let Some(url) = public_url.filter(|_| !node.each().is_empty()) {
        let address = url.as_str().trim_end_matches('/');
        if !audiences.iter().any(|audience| audience.trim_end_matches('/') == address) {
            faults.push(
                Fault::at(&node.span, "clients ask for tokens for `public_url`, and it is no audience here")
                    .fix(format!("add `{address}`, unless the issuer maps it"))
                    .warning(),
            );
        }
    }
}

fn jwks(node: &Node, base: &Path, faults: &mut Faults) -> Jwks {
    let Some(jwks) = node.get("jwks").filter(|jwks| jwks.text().is_none()) else { return Jwks::Discovery };
    one_of(jwks, &["url", "file"], "an issuer's keys have one place", faults);
    match (url(jwks, "url"), text(jwks, "file")) {
        (Some(url), _) => Jwks::Url(url),
        (None, Some(file)) => Jwks::File(base.join(file)),
        (None, None) => Jwks::Discovery,
    }
}

fn algorithms(node: &Node) -> Vec<Algorithm> {
    let given = names(node, "algorithms");
    if given.is_empty() { Algorithm::DEFAULT.to_vec() } else { given }
}

fn token_types(node: &Node) -> Vec<String> {
    let given = texts(node, "type");
    if given.is_empty() { vec!["at+jwt".to_owned(), "JWT".to_owned()] } else { given }
}
