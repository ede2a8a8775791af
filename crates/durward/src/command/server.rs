//! `durward server`

use super::{
    office::{Office, Site},
    print,
};
use crate::{
    cli::{Exit, Output, ServerCommand, Shared},
    config::settings::Reach,
    directory,
};
use anyhow::Result;
use http::Method;
use serde_json::{Value, json};
use vocab::Timestamp;

pub(crate) async fn run(shared: &Shared, command: &ServerCommand) -> Result<Exit> {
    let ServerCommand::List = command;
    let site = Site::find(shared)?;
    let socket = directory::socket_path(&site.data);
    let servers = if Office::is_running(&site).await {
        Office::Running(socket).ask(Method::GET, "/api/servers", None).await?.value()?
    } else {
        print::say("the gateway is not running: this is what the configuration says");
        configured(&site)?
    };
    if shared.output == Output::Json {
        print::json(&servers)?;
    } else {
        table(&servers)?;
        troubles(&servers)?;
    }
    Ok(Exit::Done)
}

/// A line for each server.
pub(crate) fn table(servers: &Value) -> Result<()> {
    let header = ["server", "transport", "environment", "state", "eras", "asked", "in_flight", "tools", "unusable"];
    print::list(Output::Table, servers, "servers", header, row)
}

/// Says what keeps servers and tools from being used. `false` if nothing does.
pub(crate) fn troubles(servers: &Value) -> Result<bool> {
    let mut any = false;
    for server in servers.get("servers").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default() {
        details(server)?;
        any |= is_troubled(server);
    }
    Ok(any)
}

/// Whether a server cannot be used, or one of its tools.
pub(crate) fn is_troubled(server: &Value) -> bool {
    let unusable = server.get("unusable").and_then(Value::as_array).is_some_and(|tools| !tools.is_empty());
    unusable || server.get("fault").is_some_and(|fault| !fault.is_null())
}

fn row(server: &Value) -> [String; 9] {
    let [name, transport, environment, state, in_flight] =
        ["server", "transport", "environment", "state", "in_flight"].map(|member| print::text(server, member));
    let era = |era: &str| match server.pointer(&format!("/eras/{era}")).and_then(Value::as_bool) {
        Some(true) => Some(era.to_owned()),
        Some(false) => None,
        None => Some(format!("{era}?")),
    };
    let eras: Vec<String> = ["legacy", "modern"].into_iter().filter_map(era).collect();
    let told = server.get("unusable").and_then(Value::as_array).map_or(0, Vec::len) as u64;
    let unusable = told + more(server, "unusable_more");
    let tools = server.get("catalog").map_or_else(|| "-".to_owned(), |catalog| print::text(catalog, "tools"));
    [name, transport, environment, state, eras.join(","), asked(server), in_flight, tools, unusable.to_string()]
}

/// Since when it is known which eras a server speaks: the older of the dates, to the second.
fn asked(server: &Value) -> String {
    let dates = ["/asked_at/legacy", "/asked_at/modern"].map(|era| server.pointer(era).and_then(Value::as_i64));
    let Some(oldest) = dates.into_iter().flatten().min() else { return "-".to_owned() };
    let shown = Timestamp::from_micros(oldest).to_string();
    shown.split_once('.').map_or_else(|| shown.clone(), |(seconds, _)| format!("{seconds}Z"))
}

/// Why a server is down, which of its tools cannot be called, and what is not listed.
fn details(server: &Value) -> Result<()> {
    let name = print::text(server, "server");
    let list = |member: &str| server.get(member).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let safe = |value: &Value, member: &str| print::safe(&print::text(value, member));
    if let Some(fault) = server.get("fault").and_then(Value::as_str) {
        print::data(&format!("\n{name}: {}", print::safe(fault)))?;
    }
    for tool in list("unusable") {
        let (tool, why) = (safe(tool, "tool"), safe(tool, "why"));
        print::data(&format!("\n{name}/{tool}: its calls are refused, its schema cannot be used: {why}"))?;
    }
    let unusable_more = more(server, "unusable_more");
    if unusable_more > 0 {
        print::data(&format!("\n{name}: and {unusable_more} tools more whose calls are refused"))?;
    }
    for entry in list("left_out") {
        let [list, entry, why] = ["list", "name", "why"].map(|member| safe(entry, member));
        print::data(&format!(
            "\n{name}/{entry}: `/mcp` leaves it out of `{list}`, clients refuse the whole list for it: {why}"
        ))?;
    }
    let left_out_more = more(server, "left_out_more");
    if left_out_more > 0 {
        print::data(&format!("\n{name}: and {left_out_more} entries more that `/mcp` leaves out"))?;
    }
    Ok(())
}

/// How many there are besides those that are told.
fn more(server: &Value, member: &str) -> u64 {
    server.get(member).and_then(Value::as_u64).unwrap_or_default()
}

/// The servers as they are configured.
fn configured(site: &Site) -> Result<Value> {
    let settings = site.load()?.settings;
    let servers: Vec<Value> = settings
        .servers
        .iter()
        .map(|(name, server)| {
            let (transport, address) = match &server.reach {
                Reach::Http { url, sse, .. } => {
                    let mut plain = url.clone();
                    plain.set_query(None);
                    (if *sse { "sse" } else { "http" }, plain.to_string())
                }
                Reach::Command { program, .. } => ("stdio", program.clone()),
            };
            json!({
                "server": name,
                "transport": transport,
                "address": address,
                "environment": server.environment,
                "state": "not running",
                "calls_in_flight": server.calls_in_flight,
            })
        })
        .collect();
    Ok(json!({ "servers": servers }))
}

#[cfg(test)]
mod tests {
    use super::asked;
    use serde_json::json;
    use vocab::Timestamp;

    #[test]
    fn since_when_eras_are_known_is_shown_as_the_gateway_tells_it() {
        let [older, newer] = [1_795_953_420_829_743, 1_795_953_999_000_000].map(Timestamp::from_micros);
        let shown = |asked_at| asked(&json!({ "asked_at": asked_at }));
        assert_eq!(shown(json!({ "legacy": newer, "modern": older })), "2026-11-29T11:57:00Z");
        assert_eq!(shown(json!({ "legacy": newer, "modern": null })), "2026-11-29T12:06:39Z");
        assert_eq!(shown(json!({ "legacy": null, "modern": null })), "-");
    }
}
