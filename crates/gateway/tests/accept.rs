//! What a client is told that asks for a stream of events and takes none.

mod inside;

use gateway::settings::EraSettings;
use inside::{Inside, Plan, outcome};
use serde_json::{Value, json};
use testkit::{Agent, Ask, Upstream, meta, soon};

#[tokio::test]
async fn a_lasting_stream_that_its_client_does_not_take_is_refused_by_http() {
    for path in ["/sse", "/sse/files"] {
        let upstream = Upstream::start().await;
        let inside = Inside::start(Plan::of(&upstream)).await;
        let opening = || Ask::get(&inside.url(path)).bearer(&inside.alice);
        let reply = opening().header("accept", "application/json, text/html").send().await;
        assert_eq!((reply.status.as_u16(), reply.header("content-type")), (406, Some("application/json")), "{path}");
        assert_eq!(reply.json().await["error"]["code"], -32600, "{path}");
        assert_eq!(outcome(inside.records().await.last().unwrap()), "refused accept resolve", "{path}");
        // Old clients may say nothing, or that they take anything.
        for accept in [None, Some("*/*"), Some("text/event-stream"), Some("text/html, */*;q=0.8")] {
            let opening = accept.map_or_else(opening, |accept| opening().header("accept", accept));
            let mut stream = opening.send().await;
            assert_eq!(stream.status, 200, "{path} {accept:?}");
            assert!(soon(stream.any_event()).await.is_some(), "{path} {accept:?}");
        }
    }
}

/// What opens a stream in the era of a client.
fn opening(agent: &Agent) -> Ask {
    if agent.session().is_some() {
        return agent.to_listen();
    }
    let params = json!({"notifications": {"toolsListChanged": true}, "_meta": meta()});
    let message = json!({"jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen", "params": params});
    agent.ask("subscriptions/listen", &message)
}

#[tokio::test]
async fn a_stream_that_its_client_does_not_take_is_refused_by_http() {
    for era in [EraSettings::Legacy, EraSettings::Modern, EraSettings::Both] {
        for is_legacy in [true, false] {
            for path in ["/mcp/files", "/mcp"] {
                let upstream = Upstream::start().await;
                let inside = Inside::start(Plan { era, ..Plan::of(&upstream) }).await;
                let agent = if is_legacy {
                    inside.legacy(path, &inside.alice).await
                } else {
                    inside.modern(path, &inside.alice)
                };
                let what = format!("{era:?} {is_legacy} {path}");
                // A server of the client's era answers for itself.
                let own = if is_legacy { EraSettings::Legacy } else { EraSettings::Modern };
                if path == "/mcp/files" && (era == own || era == EraSettings::Both) {
                    let name = if is_legacy { "GET" } else { "subscriptions/listen" };
                    drop(opening(&agent).replace("accept", "application/json").send().await);
                    assert_eq!(upstream.arrived(name, 1).await.header("accept"), Some("application/json"), "{what}");
                    continue;
                }
                let reply = opening(&agent).replace("accept", "application/json, text/html").send().await;
                assert_eq!(
                    (reply.status.as_u16(), reply.header("content-type")),
                    (406, Some("application/json")),
                    "{what}"
                );
                let answer: Value = serde_json::from_str(&reply.text().await).unwrap();
                assert_eq!(answer["error"]["code"], -32600, "{what} {answer}");
                let records = inside.records().await;
                assert_eq!(outcome(records.last().unwrap()), "refused accept resolve", "{what}");
                for accept in ["text/event-stream", "application/json;q=0.1, */*"] {
                    let mut stream = opening(&agent).replace("accept", accept).send().await;
                    assert_eq!(
                        (stream.status.as_u16(), stream.header("content-type")),
                        (200, Some("text/event-stream")),
                        "{what}"
                    );
                    assert!(soon(stream.chunk()).await.is_some(), "{what}");
                }
            }
        }
    }
}
