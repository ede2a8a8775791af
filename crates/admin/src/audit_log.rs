//! The log, for those who may read it.

use crate::{
    answer::{Done, Fault, name, read},
    desk::Desk,
};
use audit::{Checkpoint, Entry, Filter, Order, ProveFault, Query, ReadFault, Reader, Tree, Which};
use axum::{
    body::Bytes,
    extract::{Path, Query as Asked, State},
};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use vocab::CallId;

/// The most records of one answer.
const PAGE: usize = 1000;
/// The most records one request looks at; the answer says where the next goes on.
const SCAN: u64 = 200_000;
/// One verification at a time: it reads everything.
static VERIFYING: tokio::sync::Semaphore = tokio::sync::Semaphore::const_new(1);

/// Which records are asked for. What is absent matches everything.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(crate) struct Search {
    kind: Option<String>,
    agent: Option<String>,
    user: Option<String>,
    issuer: Option<String>,
    server: Option<String>,
    target: Option<String>,
    outcome: Option<String>,
    call: Option<String>,
    trace: Option<String>,
    since: Option<String>,
    until: Option<String>,
    /// `system` for what happened to the gateway itself.
    tree: Option<String>,
    /// `oldest` or `newest` first.
    order: Option<String>,
    from: Option<u64>,
    limit: Option<usize>,
}

/// What records are.
const KINDS: [&str; 4] = ["intent", "call", "admin", "system"];
/// How calls end.
const OUTCOMES: [&str; 7] = ["answered", "failed", "refused", "withheld", "faulted", "abandoned", "unknown"];

/// A word that records have. Any other would find nothing, which reads like an answer.
fn one_of(parameter: &str, said: Option<String>, words: &[&str]) -> Result<Option<String>, Fault> {
    match said {
        Some(said) if !words.contains(&said.as_str()) => {
            Err(Fault::bad(format!("`{parameter}` is one of {}", words.join(", "))))
        }
        said => Ok(said),
    }
}

/// What to verify against.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Against {
    checkpoint: Option<String>,
}

pub(crate) async fn search(
    State(desk): State<Arc<Desk>>,
    asked: Result<Asked<Search>, axum::extract::rejection::QueryRejection>,
) -> Result<Done, Fault> {
    let Asked(search) = asked.map_err(|fault| Fault::bad(fault.body_text()))?;
    let tree = match search.tree.as_deref() {
        None | Some("tenant") => Tree::Tenant(desk.tenant.clone()),
        Some("system") => Tree::System,
        Some(_) => return Err(Fault::bad("`tree` is tenant or system")),
    };
    let order = match search.order.as_deref() {
        None | Some("newest") => Order::Newest,
        Some("oldest") => Order::Oldest,
        Some(_) => return Err(Fault::bad("`order` is newest or oldest")),
    };
    let filter = Filter {
        kind: one_of("kind", search.kind, &KINDS)?,
        agent: search.agent,
        user: search.user,
        issuer: search.issuer,
        server: search.server,
        target: search.target,
        outcome: one_of("outcome", search.outcome, &OUTCOMES)?,
        call: search.call.as_deref().map(name).transpose()?,
        trace: search.trace,
        since: search.since.as_deref().map(name).transpose()?,
        until: search.until.as_deref().map(name).transpose()?,
    };
    let limit = match search.limit.unwrap_or(100) {
        0 => return Err(Fault::bad(format!("`limit` is from 1 to {PAGE}"))),
        limit => limit.min(PAGE),
    };
    let query = Query { filter, order, from: search.from, limit, scan: SCAN };
    let page = on_disk(&desk, move |desk| Reader::open(&desk.log_dir, &tree)?.page(&query)).await?;
    let count = page.entries.len();
    let records: Vec<Value> = page.entries.into_iter().map(|entry| entry.value).collect();
    Ok(Done::json(json!({ "records": records, "next": page.next })).detail(format!("{count} records")))
}

pub(crate) async fn show(State(desk): State<Arc<Desk>>, Path(call): Path<String>) -> Result<Done, Fault> {
    let call: CallId = name(&call)?;
    let found = on_disk(&desk, move |desk| find(desk, &call)).await.map_err(|fault| fault.to(&call))?;
    if found.is_empty() {
        return Err(Fault::missing(format!("no record of call {call} is signed yet")).to(&call));
    }
    let records: Vec<Value> = found.into_iter().map(|entry| entry.value).collect();
    Ok(Done::json(json!({ "records": records })).to(&call))
}

/// Where a call may be on record: whoever has an id need not know in which tree.
fn trees(desk: &Desk) -> [Tree; 2] {
    [Tree::Tenant(desk.tenant.clone()), Tree::System]
}

/// The records of a call.
pub(crate) fn find(desk: &Desk, call: &CallId) -> Result<Vec<Entry>, ReadFault> {
    let mut found = Vec::new();
    for tree in trees(desk) {
        if found.is_empty() {
            found = Reader::open(&desk.log_dir, &tree)?.find(call)?;
        }
    }
    Ok(found)
}

pub(crate) async fn prove(State(desk): State<Arc<Desk>>, Path(call): Path<String>) -> Result<Done, Fault> {
    let call: CallId = name(&call)?;
    let proven = on_disk(&desk, move |desk| {
        for tree in trees(desk) {
            match audit::prove(&desk.log_dir, &tree, Which::Call(call)) {
                Err(ProveFault::Missing) => {}
                Ok(text) => return Ok(Some(text)),
                Err(ProveFault::Read(fault)) => return Err(fault),
                Err(ProveFault::Disk(cause)) => return Err(ReadFault::Disk(cause)),
            }
        }
        Ok(None)
    })
    .await
    .map_err(|fault| fault.to(&call))?;
    match proven {
        Some(proof) => Ok(Done::text(proof).to(&call)),
        None => Err(Fault::missing(format!("no record of call {call} is signed yet")).to(&call)),
    }
}

pub(crate) async fn verify(State(desk): State<Arc<Desk>>, body: Bytes) -> Result<Done, Fault> {
    let Against { checkpoint } = read(&body, "{\"checkpoint\": TEXT}, or nothing")?;
    let against = checkpoint
        .map(|note| Checkpoint::open(&note, &desk.log_public))
        .transpose()
        .map_err(|fault| Fault::bad(format!("the checkpoint cannot be used: {fault}")))?;
    let _one = VERIFYING.try_acquire().map_err(|_| Fault::conflict("a verification is under way"))?;
    let own = Arc::clone(&desk);
    let verified = tokio::task::spawn_blocking(move || {
        audit::verify(&own.log_dir, &own.log_public, against.as_ref(), own.log.anchor())
    })
    .await;
    match verified {
        Ok(Ok(verified)) => {
            let trees: Vec<Value> = verified
                .trees
                .iter()
                .map(|tree| json!({ "tree": tree.tree.to_string(), "records": tree.size, "unsigned": tree.unsigned }))
                .collect();
            let detail = format!("{} records hold", verified.records());
            Ok(Done::json(json!({ "holds": true, "anchored": verified.anchored, "trees": trees })).detail(detail))
        }
        Ok(Err(broken)) => {
            let body =
                json!({ "holds": false, "tree": broken.tree, "record": broken.index, "why": broken.explanation });
            Ok(Done::json(body).detail(broken.to_string()))
        }
        Err(_) => Err(Fault::new(StatusCode::INTERNAL_SERVER_ERROR, "fault", "the verification failed to run")),
    }
}

pub(crate) async fn checkpoint(State(desk): State<Arc<Desk>>) -> Result<Done, Fault> {
    let tree = Tree::Tenant(desk.tenant.clone());
    let note = on_disk(&desk, move |desk| Ok(Reader::open(&desk.log_dir, &tree)?.note().map(str::to_owned))).await?;
    note.map(Done::text).ok_or_else(|| Fault::missing("nothing is signed yet"))
}

pub(crate) async fn key(State(desk): State<Arc<Desk>>) -> Done {
    Done::text(format!("{}\n", desk.log_key))
}

/// Reading the log waits for the disk: that is not done on the thread of the listener.
pub(crate) async fn on_disk<T: Send + 'static>(
    desk: &Arc<Desk>,
    work: impl FnOnce(&Desk) -> Result<T, ReadFault> + Send + 'static,
) -> Result<T, Fault> {
    let own = Arc::clone(desk);
    let broken = || Fault::new(StatusCode::INTERNAL_SERVER_ERROR, "fault", "the log could not be read");
    let done = tokio::task::spawn_blocking(move || work(&own)).await.map_err(|_| broken())?;
    done.map_err(|cause| Fault::ours("the log cannot be read", &cause))
}
