//! Servers that speak HTTP/2: calls of both eras, over a connection that they share, and never in another protocol.
#![expect(clippy::unwrap_used, reason = "what a test expects and does not find fails it")]

mod inside;

use bytes::Bytes;
use http::{Request, Response};
use inside::{Inside, Plan};
use serde_json::json;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use testkit::{Ask, Upstream};
use tokio::net::TcpListener;

/// Speaks HTTP/2 and nothing else before a scripted server. Counts its connections.
async fn front(upstream: &Upstream) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    let (behind, connections) = (upstream.url(), Arc::<AtomicUsize>::default());
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let behind = behind.clone();
            let counted = Arc::clone(&counted);
            tokio::spawn(async move {
                let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                counted.fetch_add(1, Ordering::SeqCst);
                while let Some(Ok((request, respond))) = connection.accept().await {
                    tokio::spawn(pass(request, respond, behind.clone()));
                }
            });
        }
    });
    (url, connections)
}

async fn pass(request: Request<h2::RecvStream>, mut respond: h2::server::SendResponse<Bytes>, behind: String) {
    let (head, mut body) = request.into_parts();
    let mut text = Vec::new();
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
        text.extend_from_slice(&data);
    }
    let mut ask = Ask::new(head.method, &behind).body(text);
    for (name, value) in &head.headers {
        ask = ask.replace(name.as_str(), value.to_str().unwrap());
    }
    let reply = ask.send().await;
    let mut response = Response::new(());
    *response.status_mut() = reply.status;
    *response.headers_mut() = reply.headers.clone();
    for name in ["connection", "transfer-encoding"] {
        response.headers_mut().remove(name);
    }
    let mut stream = respond.send_response(response, false).unwrap();
    stream.send_data(reply.bytes().await, true).unwrap();
}

#[tokio::test]
async fn a_server_of_http_2_is_used_in_both_eras_over_few_connections() {
    let upstream = Upstream::start().await;
    let (url, connections) = front(&upstream).await;
    let plan = |http2| Plan { servers: vec![("files", url.clone())], http2, ..Plan::of(&upstream) };
    let inside = Inside::start(plan(Some(true))).await;
    let legacy = inside.legacy("/mcp/files", &inside.alice).await;
    let modern = inside.modern("/mcp/files", &inside.alice);
    assert_eq!((legacy.tools().await, modern.tools().await), (vec!["echo".to_owned()], vec!["echo".to_owned()]));
    for _ in 0..20 {
        for agent in [&legacy, &modern] {
            let answer = agent.call("echo", json!({"n": 1.0})).await;
            assert_eq!(answer["result"]["content"][0]["text"], "{\"n\":1.0}", "{answer}");
        }
    }
    // Each thread of the gateway has its own; the first calls of a thread may open one each.
    assert!(connections.load(Ordering::SeqCst) <= 8, "{connections:?}");
    let all = inside.modern("/mcp", &inside.alice);
    assert!(all.call("files__echo", json!({})).await["result"].is_object());
    // Nobody guesses: without TLS a server is spoken to in HTTP/1.1 unless it is said to know better.
    inside.swap(plan(None));
    assert!(modern.call("echo", json!({})).await["error"].is_object());
}
