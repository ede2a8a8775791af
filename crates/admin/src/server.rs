//! Upstream servers: what is known of each.

use crate::{
    answer::{Done, Fault, Nothing},
    desk::Desk,
    status::no_gateway,
};
use axum::extract::State;
use gateway::{
    catalog::{Catalog, LeftOut},
    clock::Clock,
    label,
    server::Server,
    settings::TransportSettings,
};
use mcp::{Era, ListKind};
use serde_json::{Value, json};
use std::{
    collections::{BTreeSet, HashSet},
    sync::{Arc, atomic::Ordering},
};
use tokio::task::JoinSet;
use vocab::Timestamp;

/// How many entries that are left out of lists are told of a server, and how many tools whose calls are refused.
const TOLD: usize = 100;

pub(crate) async fn list(State(desk): State<Arc<Desk>>) -> Result<Done, Fault> {
    let plane = desk.plane.as_ref().ok_or_else(no_gateway)?;
    let snapshot = plane.state.snapshot.load_full();
    let servers: Vec<Value> = snapshot.servers.values().map(|server| describe(server, &*desk.clock)).collect();
    Ok(Done::json(json!({ "servers": servers })))
}

/// Looks at every server now, all at once, and tells what is known then. A look has its own budget.
pub(crate) async fn look(State(desk): State<Arc<Desk>>, _: Nothing) -> Result<Done, Fault> {
    let plane = desk.plane.as_ref().ok_or_else(no_gateway)?;
    let line = plane.state.line();
    let mut looks = JoinSet::new();
    for server in line.servers() {
        let (line, server) = (line.clone(), Arc::clone(server));
        looks.spawn(async move { line.look(&server).await });
    }
    // What comes of each is kept with its server.
    while looks.join_next().await.is_some() {}
    list(State(desk)).await
}

fn describe(server: &Server, clock: &dyn Clock) -> Value {
    let catalog = server.state.catalog.load_full();
    let fault = server.state.fault.load_full().map(|fault| fault.to_string());
    let state = match (&catalog, &fault) {
        (_, Some(_)) => "down",
        (Some(_), None) => "up",
        (None, None) => "not looked at yet",
    };
    let (transport, address) = transport(server);
    let (left_out, left_out_more) = catalog.as_ref().map_or_else(Default::default, |catalog| left_out(server, catalog));
    let (unusable, unusable_more) = catalog.as_ref().map_or_else(Default::default, |catalog| unusable(server, catalog));
    let age = |catalog: &Catalog| clock.ticks().saturating_sub(catalog.looked_at) / 1_000_000;
    json!({
        "server": server.name,
        "transport": transport,
        "address": address,
        "environment": server.environment,
        "state": state,
        "fault": fault,
        "eras": { "legacy": server.speaks(Era::Legacy), "modern": server.speaks(Era::Modern) },
        "asked_at": { "legacy": asked(server, Era::Legacy), "modern": asked(server, Era::Modern) },
        "in_flight": server.state.in_flight.load(Ordering::Acquire),
        "calls_in_flight": server.calls_in_flight,
        "looked_at_seconds_ago": catalog.as_deref().map(age),
        "catalog": catalog.as_ref().map(|catalog| json!({
            "tools": catalog.count(ListKind::Tools),
            "prompts": catalog.count(ListKind::Prompts),
            "resources": catalog.count(ListKind::Resources),
            "templates": catalog.count(ListKind::Templates),
        })),
        "left_out": left_out,
        "left_out_more": left_out_more,
        "unusable": unusable,
        "unusable_more": unusable_more,
    })
}

/// When it was asked what it speaks; none where the configuration says it, or nobody asked yet.
fn asked(server: &Server, era: Era) -> Option<Timestamp> {
    let asked = server.era.is_none().then(|| server.state.verdict.load().of(era)).flatten();
    asked.map(|seen| seen.at)
}

/// How it is reached, and where; never a query, which may hold what nobody should read.
fn transport(server: &Server) -> (&'static str, String) {
    match &server.settings().transport {
        TransportSettings::Http { url, .. } => {
            let plain = url.split(['?', '#']).next().unwrap_or_default();
            let plain = match plain.split_once("://") {
                Some((scheme, rest)) => {
                    let (authority, path) =
                        rest.split_once('/').map_or((rest, ""), |(authority, path)| (authority, path));
                    let host = authority.rsplit('@').next().unwrap_or_default();
                    format!("{scheme}://{host}/{path}")
                }
                None => String::new(),
            };
            // As the operator says, or as it was found out.
            let word = if server.lasts() { "sse" } else { "http" };
            (word, plain)
        }
        TransportSettings::Stdio { command, .. } => ("stdio", command.first().cloned().unwrap_or_default()),
    }
}

/// Entries that `/mcp` leaves out, for official SDKs refuse a whole list for one of them, and why: the first of them, and
/// how many there are besides.
fn left_out<'c>(server: &Server, catalog: &'c Catalog) -> (Vec<Value>, usize) {
    let named = |(entry, why): (&'c LeftOut, &'c str)| (entry.kind.method(), entry.shown(), why);
    // In both eras it may be the same one.
    let mut known = HashSet::new();
    let mut told = catalog.left_out(server).map(named).filter(|entry| known.insert(entry.clone()));
    let tell = |(list, name, why)| json!({ "list": list, "name": name, "why": why });
    let first = told.by_ref().take(TOLD).map(tell).collect();
    (first, told.count())
}

/// Tools whose calls are refused, and why: the first of them, and how many there are besides.
fn unusable(server: &Server, catalog: &Catalog) -> (Vec<Value>, usize) {
    let era = if server.speaks(Era::Modern) == Some(true) { Era::Modern } else { Era::Legacy };
    // In both eras it may be refused for the same.
    let unusable: BTreeSet<(&str, String)> = [era, Era::Legacy]
        .into_iter()
        .flat_map(|era| catalog.spoken(era).tools.iter().map(move |(name, tool)| (name, tool, era)))
        .filter(|(name, ..)| !server.skips_schema(name))
        .filter_map(|(name, tool, era)| Some((&**name, tool.refused(era)?)))
        .collect();
    let more = unusable.len().saturating_sub(TOLD);
    let tell = |(tool, why): (&str, String)| json!({ "tool": label::shown(tool), "why": label::shown(&why) });
    (unusable.into_iter().take(TOLD).map(tell).collect(), more)
}
