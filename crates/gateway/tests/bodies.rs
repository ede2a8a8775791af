//! What a server answers over HTTP that is no message.
#![expect(clippy::unwrap_used, reason = "what a test expects and does not find fails it")]

mod inside;

use gateway::settings::Bounds;
use guard::{Guards, Mode, Setting};
use http::StatusCode;
use inside::{Inside, Plan, outcome};
use serde_json::{Value, json};
use testkit::{Agent, Answer, Reply, Streamer, Upstream};

const TEXT: &str = "text/plain; charset=utf-8";
const SECRET: &str = "ghp_A7dK2mQ9xR4tV8wZ1cF6hJ3nP5sY0u2Kq9Lb";

async fn clients(inside: &Inside, door: &str) -> [Agent; 2] {
    [inside.legacy(door, &inside.alice).await, inside.modern(door, &inside.alice)]
}

async fn called(agent: &Agent, tool: &str) -> Reply {
    agent.request("tools/call", json!({"name": tool, "arguments": {}})).await
}

/// The record of the last call of a tool.
async fn recorded(inside: &Inside) -> Value {
    inside.records().await.into_iter().rfind(|record| record["method"] == "tools/call").unwrap()
}

fn of(kind: &str, text: impl Into<Vec<u8>>) -> Answer {
    let answer = Answer::text(text.into());
    if kind.is_empty() { answer } else { answer.header("content-type", kind) }
}

/// What a server behind a proxy may answer that wants somebody to sign in, and others that are no answers.
fn successes() -> [(Answer, &'static str); 5] {
    [
        (of("text/html; charset=utf-8", "<html>sign in</html>"), "HTTP 200 OK"),
        (Answer::status(StatusCode::OK), "HTTP 200 OK"),
        (Answer::status(StatusCode::ACCEPTED), "HTTP 202 Accepted"),
        (Answer::json(""), "HTTP 200 OK"),
        (Answer::status(StatusCode::FOUND).header("location", "https://sign.example/"), "HTTP 302 Found"),
    ]
}

#[tokio::test]
async fn a_request_that_succeeds_without_a_message_has_failed() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(Plan::of(&upstream)).await;
    for (door, tool) in [("/mcp/files", "echo"), ("/mcp", "files__echo")] {
        for agent in clients(&inside, door).await {
            for (answer, told) in successes() {
                upstream.next("tools/call", answer);
                let reply = called(&agent, tool).await;
                assert_eq!(reply.status, StatusCode::OK, "{door} {told}");
                let answer = reply.json().await;
                assert_eq!(answer["error"]["code"], -31006, "{door} {answer}");
                let record = recorded(&inside).await;
                assert_eq!(outcome(&record), "faulted upstream-protocol forward", "{record:#}");
                assert!(record["error"].as_str().unwrap().contains(told), "{record:#}");
            }
            // Nobody waits for an answer to a notification.
            upstream.next("notifications/progress", of("text/html", "<html>sign in</html>"));
            assert!(
                agent
                    .notify("notifications/progress", json!({"progressToken": 1, "progress": 1}))
                    .await
                    .status
                    .is_success()
            );
            upstream.unqueue();
        }
    }
    // What came instead is told to whoever reads the log.
    upstream.next("tools/call", of("text/html", "<html>sign in</html>"));
    let answer = called(&inside.modern("/mcp/files", &inside.alice), "echo").await.text().await;
    assert!(recorded(&inside).await["error"].as_str().unwrap().ends_with("without a message (text/html)"));
    assert!(!answer.contains("sign in") && !answer.contains("html"), "{answer}");
}

#[tokio::test]
async fn a_client_of_2024_is_told_of_no_answer_and_no_text() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(Plan::of(&upstream)).await;
    let (mut client, _) = Streamer::begin(&inside.url("/sse/files"), Some(&inside.alice)).await;
    for answer in [of("text/html", "<html>"), of("text/plain", "busy").with_status(StatusCode::SERVICE_UNAVAILABLE)] {
        upstream.next("tools/call", answer);
        let answer = client.request("tools/call", json!({"name": "echo", "arguments": {}})).await;
        assert_eq!(answer["error"]["code"], -31006, "{answer}");
    }
}

#[tokio::test]
async fn the_text_of_an_http_error_passes_and_is_nothing_that_a_browser_runs() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(Plan::of(&upstream)).await;
    let long = "x".repeat(64 << 10);
    let problem = "application/problem+json";
    for agent in clients(&inside, "/mcp/files").await {
        for (kind, text, shown) in [
            ("text/plain", "Bad Request: no valid session", TEXT),
            ("Text/Plain;charset=utf-8", long.as_str(), TEXT),
            ("text/html; charset=utf-8", "<html>\n<script>\"no\"</script>\n", TEXT),
            ("text/plain", r#" {"detail" : "no"} "#, TEXT),
            (problem, r#"{"title" : "no"}"#, problem),
            ("", r#"{"detail" : "no"}"#, "application/json"),
            ("", "no", TEXT),
        ] {
            let answer = of(kind, text).with_status(StatusCode::UNPROCESSABLE_ENTITY).header("retry-after", "7");
            upstream.next("tools/call", answer);
            let reply = called(&agent, "echo").await;
            assert_eq!((reply.status, reply.header("retry-after")), (StatusCode::UNPROCESSABLE_ENTITY, Some("7")));
            assert_eq!(reply.header("content-type"), Some(shown), "{kind}: {text}");
            assert_eq!(reply.text().await, text);
            let record = recorded(&inside).await;
            assert_eq!((outcome(&record).as_str(), &record["result"]["bytes"]), ("failed", &json!(text.len())));
        }
    }
}

#[tokio::test]
async fn of_an_http_error_whose_body_cannot_be_judged_the_status_passes_alone() {
    let upstream = Upstream::start().await;
    let inside = Inside::start(Plan::of(&upstream)).await;
    let long = "x".repeat((64 << 10) + 1);
    for agent in clients(&inside, "/mcp/files").await {
        for (kind, text) in [
            ("text/plain", long.as_bytes()),
            ("text/plain", b"\xff\xfe"),
            // Readers of JSON differ in what they take of these.
            ("text/plain", br#"{"error": {}, "error": {"code": -32042}}"#),
            ("text/html", "\u{feff} [1, 2".as_bytes()),
            ("application/problem+json", b"no"),
            ("application/json", b"no"),
            ("application/octet-stream", b"no"),
            ("application/xhtml+xml", b"<html/>"),
            ("text/event-stream", b"data: no\n\n"),
        ] {
            let answer = of(kind, text).with_status(StatusCode::SERVICE_UNAVAILABLE).header("retry-after", "7");
            upstream.next("tools/call", answer);
            let reply = called(&agent, "echo").await;
            assert_eq!((reply.status, reply.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, Some("7")));
            assert_eq!(reply.header("content-type"), None, "{kind}");
            assert_eq!(reply.text().await, "", "{kind}");
            assert_eq!(outcome(&recorded(&inside).await), "failed");
        }
    }
}

#[tokio::test]
async fn what_is_too_large_to_be_looked_into_is_withheld_with_its_size_and_the_bound() {
    let upstream = Upstream::start().await;
    let both = |mode| Guards::new(Setting { results: mode, arguments: mode });
    let bounds = Bounds { body: 8 << 20, ..Bounds::default() };
    let inside = Inside::start(Plan { guards: both(Mode::Mask), bounds, ..Plan::of(&upstream) }).await;
    let data = "A".repeat(5 << 20);
    let told = |answer: &Value, code: i64, setting: &str| {
        assert_eq!(answer["error"]["code"], code, "{answer}");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(
            message.contains("5242880 bytes") && message.contains("4194304") && message.contains(setting),
            "{message}"
        );
    };
    let picture = json!({"content": [{"type": "image", "mimeType": "image/png", "data": data}]});
    for agent in clients(&inside, "/mcp/files").await {
        let picture = picture.clone();
        upstream.always("tools/call", move |received| {
            let mut result = picture.clone();
            if agent_is_modern(received) {
                result["resultType"] = "complete".into();
            }
            Answer::result(&received.id(), &result)
        });
        told(&agent.call("echo", json!({})).await, -31004, "detect.secrets.results");
        told(&agent.call("echo", json!({"text": data})).await, -31003, "detect.secrets.arguments");
    }
    // What stands beside that is looked into as well.
    let agent = inside.legacy("/mcp/files", &inside.alice).await;
    let beside = data.clone();
    upstream.next("tools/call", {
        let message = json!({"jsonrpc": "2.0", "id": 2, "result": {"content": []}, "vendor": beside});
        Answer::json(message.to_string())
    });
    told(&agent.call("echo", json!({})).await, -31004, "detect.secrets.results");
    let params = json!({"name": "echo", "arguments": {}});
    let call = json!({"jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": params, "vendor": data});
    told(&agent.ask("tools/call", &call).send().await.json().await, -31003, "detect.secrets.arguments");
    // Where nothing would be changed it passes.
    inside.swap(Plan { guards: both(Mode::Report), ..Plan::of(&upstream) });
    let agent = inside.modern("/mcp/files", &inside.alice);
    assert_eq!(agent.call("echo", json!({})).await["result"]["content"][0]["type"], "image");
}

fn agent_is_modern(received: &testkit::Received) -> bool {
    received.header("mcp-method").is_some()
}

#[tokio::test]
async fn the_text_of_an_http_error_is_judged_and_screened_like_any_other() {
    let upstream = Upstream::start().await;
    let policy = json!({"policy": "test", "rules": [
        {"id": "all", "action": "tool.execute", "target": "*/*", "effect": "allow"},
    ]});
    let masking = || Guards::new(Setting { results: Mode::Mask, arguments: Mode::Off });
    let plan = |guards| Plan { policy: policy.clone(), guards, ..Plan::of(&upstream) };
    let inside = Inside::start(plan(masking())).await;
    let agents = clients(&inside, "/mcp/files").await;
    let failing = |kind: &str, text: String| {
        upstream.next("tools/call", of(kind, text).with_status(StatusCode::BAD_GATEWAY));
    };
    for agent in &agents {
        for kind in ["text/plain", ""] {
            failing(kind, format!("line \"one\"\n\tseen {SECRET} \u{e9}"));
            let reply = called(agent, "echo").await;
            assert_eq!((reply.status, reply.header("content-type")), (StatusCode::BAD_GATEWAY, Some(TEXT)));
            let text = reply.text().await;
            assert!(text.starts_with("line \"one\"\n\tseen [redacted:") && text.ends_with("] \u{e9}"), "{text}");
            assert!(recorded(&inside).await["findings"].as_array().is_some_and(|found| !found.is_empty()));
        }
        // A page to visit needs a rule, whatever the text is called that it stands in.
        let page = json!({"mode": "url", "elicitationId": "p", "url": "https://bad.example/", "message": "go"});
        let visit = json!({"error": {"code": -32042, "message": "visit", "data": {"elicitations": [page]}}});
        for kind in ["text/plain", "application/problem+json", ""] {
            failing(kind, visit.to_string());
            let answer = called(agent, "echo").await.json().await;
            assert_eq!(answer["error"]["code"], -31004, "{answer}");
            assert_eq!(outcome(&recorded(&inside).await), "withheld question release");
        }
    }
    inside.swap(plan(Guards::new(Setting { results: Mode::Refuse, arguments: Mode::Off })));
    for agent in &agents {
        failing("text/plain", format!("token {SECRET}"));
        let reply = called(agent, "echo").await;
        assert_eq!((reply.status, reply.text().await.as_str()), (StatusCode::BAD_GATEWAY, ""));
    }
}
