//! OAuth 2.0 protected resource metadata (RFC 9728): where a client that has no token may get one.

use crate::{
    call::{Call, Route},
    settings::Settings,
};
use http::header::HOST;
use serde_json::json;

/// Where the well-known document of a resource begins.
pub(crate) const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

/// The address of the metadata of the resource that a call dialled.
pub(crate) fn address(settings: &Settings, call: &Call) -> String {
    let host = call.headers.get(HOST).and_then(|host| host.to_str().ok());
    format!("{}{WELL_KNOWN}{}", base(settings, host), path("/mcp", &call.route))
}

/// The metadata of a resource, which is reached through the door of this word.
pub(crate) fn document(settings: &Settings, word: &str, route: &Route, host: Option<&str>) -> String {
    let document = json!({
        // The resource is exactly what the client dialled, without a slash at the end.
        "resource": format!("{}{}", base(settings, host), path(word, route)),
        "authorization_servers": settings.issuers,
        "bearer_methods_supported": ["header"],
        "resource_name": "Durward",
    });
    document.to_string()
}

fn base(settings: &Settings, host: Option<&str>) -> String {
    match (&settings.public_url, host) {
        (Some(url), _) => url.trim_end_matches('/').to_owned(),
        // Host was checked against what is allowed before anything else.
        (None, Some(host)) if settings.tls => format!("https://{host}"),
        (None, Some(host)) => format!("http://{host}"),
        (None, None) => String::new(),
    }
}

fn path(word: &str, route: &Route) -> String {
    match route {
        Route::All => word.to_owned(),
        Route::One(server) => format!("{word}/{server}"),
    }
}

/// The path before all doors, where the gateway is dialled behind one.
pub(crate) fn prefix(settings: &Settings) -> &str {
    let url = settings.public_url.as_deref().and_then(|url| url.split_once("://"));
    let path = url.and_then(|(_, rest)| rest.find('/').and_then(|at| rest.get(at..))).unwrap_or_default();
    path.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/')
}
