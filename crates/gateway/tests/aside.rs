//! Events of other types than `message`: to clients they are nothing, and so they are to a call.

mod inside;

use gateway::settings::EraSettings;
use guard::{Guards, Mode, Setting};
use inside::{Inside, Plan};
use serde_json::json;
use testkit::{Answer, Upstream, soon};

/// A key of a known format.
const SECRET: &str = "AKIAIOSFODNN7EXAMPLE";

/// Events that are no message, whatever is in them.
const PASSING: [&str; 4] = [
    "event: ping\ndata: {}\n\n",
    "event: ping\ndata: now\n\n",
    "event: ping\ndata:\n\n",
    "event: heartbeat\ndata: {\"time\":1.0}\n\n",
];

/// Events that a client which looks at no type would take for something. `ID` is that of the call.
const MESSAGES: [&str; 5] = [
    "event: other\ndata: {\"jsonrpc\":\"2.0\",\"id\":ID,\"result\":{\"content\":[],\"other\":true}}\n\n",
    "event: other\ndata: {\"jsonrpc\":\"2.0\",\"id\":ID,\ndata: \"Result\":{},\"Result\":{\"other\":true}}\n\n",
    "event: other\ndata: [{\"jsonrpc\":\"2.0\",\"id\":ID,\"result\":{\"other\":true}}]\n\n",
    "event: Message\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{\"other\":true}}\n\n",
    "event: other\ndata: {\"cut off\": \n\n",
];

fn guarded(upstream: &Upstream) -> Plan {
    let guards = Guards::new(Setting { results: Mode::Mask, arguments: Mode::Mask });
    Plan { guards, ..Plan::of(upstream) }
}

fn with_secret() -> [String; 2] {
    [format!("event: ping\ndata: {SECRET}\n\n"), format!("event: ping\ndata: {{\"key\":\"{SECRET}\"}}\n\n")]
}

#[tokio::test]
async fn a_call_is_answered_by_its_answer_whatever_else_is_on_its_stream() {
    for era in [EraSettings::Legacy, EraSettings::Modern] {
        let upstream = Upstream::start().await;
        let inside = Inside::start(Plan { era, ..guarded(&upstream) }).await;
        for (path, tool) in [("/mcp/files", "echo"), ("/mcp", "files__echo")] {
            for agent in [inside.legacy(path, &inside.alice).await, inside.modern(path, &inside.alice)] {
                let other = PASSING.into_iter().chain(MESSAGES).map(str::to_owned).chain(with_secret());
                for other in other {
                    let said = other.clone();
                    upstream.always("tools/call", move |request| {
                        let id = request.id().to_string();
                        let answer = json!({"jsonrpc": "2.0", "id": request.id(), "result": {"resultType": "complete", "content": [], "real": true}});
                        Answer::event_text(format!("{}event: message\ndata: {answer}\n\n", said.replace("ID", &id)))
                    });
                    let reply = agent.request("tools/call", json!({"name": tool, "arguments": {}})).await;
                    let text = soon(reply.text()).await;
                    assert!(text.contains("\"real\":true"), "{path} {other:?}: {text}");
                    assert!(!text.contains(SECRET) && !text.contains("other"), "{path} {other:?}: {text}");
                }
            }
        }
    }
}

#[tokio::test]
async fn on_the_server_s_own_path_it_arrives_as_it_was_sent() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(guarded(&upstream)).await;
    let agent = inside.legacy("/mcp/files", &inside.alice).await;
    for other in PASSING {
        upstream.always("tools/call", move |request| {
            let answer = json!({"jsonrpc": "2.0", "id": request.id(), "result": {"content": []}});
            Answer::event_text(format!("{other}data: {answer}\n\n"))
        });
        let text = soon(agent.request("tools/call", json!({"name": "echo", "arguments": {}})).await.text()).await;
        assert!(text.starts_with(other) && text.contains("\"content\":[]"), "{text}");
    }
    // What detectors find in one is in the record, as what they find in an answer.
    let [secret, _] = with_secret();
    upstream.always("tools/call", move |request| {
        let answer = json!({"jsonrpc": "2.0", "id": request.id(), "result": {"content": []}});
        Answer::event_text(format!("{secret}data: {answer}\n\n"))
    });
    soon(agent.request("tools/call", json!({"name": "echo", "arguments": {}})).await.text()).await;
    let record = inside.records().await.pop().unwrap();
    assert_eq!(record["findings"].as_array().map(Vec::len), Some(1), "{record}");
}

#[tokio::test]
async fn a_listening_stream_goes_on() {
    for path in ["/mcp/files", "/mcp"] {
        let upstream = Upstream::start().await;
        let inside = Inside::start(guarded(&upstream)).await;
        let agent = inside.legacy(path, &inside.alice).await;
        let (answer, feed) = Answer::events();
        upstream.next("GET", answer);
        let mut listener = agent.listen().await;
        upstream.arrived("GET", 1).await;
        for other in PASSING.into_iter().chain(MESSAGES).map(str::to_owned).chain(with_secret()) {
            feed.raw(other).await;
        }
        let news =
            json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "after"}});
        feed.message(&news).await;
        let mut heard = String::new();
        while !heard.contains("after") {
            let chunk = soon(listener.chunk()).await.expect("the stream goes on");
            heard.push_str(std::str::from_utf8(&chunk).unwrap());
        }
        assert!(!heard.contains(SECRET) && !heard.contains("other"), "{heard}");
        for passing in PASSING.iter().filter(|_| path == "/mcp/files") {
            assert!(heard.contains(passing), "{heard}");
        }
    }
}
