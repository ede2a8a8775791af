//! What of the wishes of a `subscriptions/listen` one server is asked for.

use crate::{authenticate::Caller, bridge::Crossing, call::Route, pipeline::Line, server::Server, task};
use mcp::{Era, Message};
use serde_json::{Value, json};
use std::{borrow::Cow, sync::Arc};

/// The list of resources in a filter.
const RESOURCES: &str = "resourceSubscriptions";

/// The client's request with the resources that policy lets it follow on this server, and the tasks that it began there.
pub(crate) fn narrowed(
    line: &Line,
    caller: &Caller,
    server: &Server,
    request: &Message,
    route: &Route,
) -> bytes::Bytes {
    let mut edits = Vec::new();
    edits.extend(kept(request, RESOURCES, |shown| {
        let uri = own_address(shown, server, route)?;
        may_subscribe(line, caller, server, &uri).then(|| uri.into_owned())
    }));
    edits.extend(kept(request, "taskIds", |shown| {
        let task = match route {
            Route::One(_) => shown.to_owned(),
            Route::All => line.task_of(caller, shown).filter(|(of, _)| *of == server.name)?.1,
        };
        line.has_task(caller, server, &task).then_some(task)
    }));
    if *route == Route::All && Crossing::between(Era::Modern, server) != Crossing::None {
        edits.extend(task::without_tasks(request));
    }
    if edits.is_empty() { request.bytes().clone() } else { mcp::splice(request.bytes(), &mut edits) }
}

/// The resources that a request names on a server, as that knows them.
pub(crate) fn followed(request: &Message, server: &Server, route: &Route) -> Vec<Arc<str>> {
    let all = request.param(&["notifications", RESOURCES]).and_then(|member| member.value().ok());
    let all = all.as_ref().and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    all.filter_map(|shown| own_address(shown, server, route)).map(Arc::from).collect()
}

/// An address as a server knows it. `None`: it is none of that server's.
fn own_address<'s>(shown: &'s str, server: &Server, route: &Route) -> Option<Cow<'s, str>> {
    match route {
        Route::One(_) => Some(shown.into()),
        Route::All => Some(mcp::address::split(shown).filter(|(of, _)| *of == server.name.as_str())?.1),
    }
}

/// A list of the filter as `keep` gives it, without what it refuses. `None` if nothing is another.
fn kept(request: &Message, list: &str, keep: impl Fn(&str) -> Option<String>) -> Option<(mcp::Span, Vec<u8>)> {
    let member = request.param(&["notifications", list])?;
    let Ok(Value::Array(all)) = member.value() else {
        // SECURITY: what is no list cannot be judged, and a server might read it as one.
        return Some((member.span.clone(), b"[]".to_vec()));
    };
    let kept: Vec<String> = all.iter().filter_map(|one| one.as_str().and_then(&keep)).collect();
    let same = kept.len() == all.len() && kept.iter().zip(&all).all(|(kept, one)| one == kept);
    (!same).then(|| (member.span.clone(), json!(kept).to_string().into_bytes()))
}

/// Whether policy lets the caller follow a resource, of which `subscriptions/listen` says no more than its address.
pub(super) fn may_subscribe(line: &Line, caller: &Caller, server: &Server, uri: &str) -> bool {
    line.may_subscribe(caller, server, uri, &json!({ "uri": uri }), &[]).is_ok()
}
