//! An address at which something else than a gateway answers: the person is told, and the exit code says so.

use super::{Client, hello};
use http::StatusCode;
use serde_json::{Value, json};
use testkit::{Answer, Upstream};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

/// What a server that wants TLS says to whoever speaks none: an alert, `unexpected_message`.
const ALERT: &[u8] = b"\x15\x03\x03\x00\x02\x02\x0a";

/// A server that says this to whatever it is sent, and closes; its port.
async fn stranger(answer: &'static [u8]) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut said = [0; 4096];
                let _ = stream.read(&mut said).await;
                let _ = stream.write_all(answer).await;
            });
        }
    });
    port
}

#[tokio::test]
async fn a_port_that_speaks_no_http_is_named_with_what_to_do() {
    let fixes: [(&[u8], &str, bool); 3] = [
        (ALERT, "write https in its URL", false),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "check the port and the scheme", true),
        (b"", "closed the connection without a complete answer", true),
    ];
    for (says, fix, may_have_happened) in fixes {
        let url = format!("http://127.0.0.1:{}/mcp", stranger(says).await);
        let mut client = Client::start(&url, None);
        for _ in 0..2 {
            let answer = client.initialize().await;
            assert_eq!(answer["error"]["code"], -31006, "{answer}");
            assert_eq!(answer["error"]["data"]["mayHaveHappened"], may_have_happened, "{answer}");
        }
        let (code, _, talk) = client.end().await;
        assert_eq!(code, Some(3), "{talk}");
        assert!(talk.contains(fix) && talk.matches(&url).count() == 1, "told once: {talk}");
        assert_eq!(talk.contains("tries again"), !may_have_happened, "what may have arrived is not sent again: {talk}");
    }
}

#[tokio::test]
async fn a_server_that_is_no_gateway_is_named_with_what_to_do() {
    for status in [StatusCode::NOT_FOUND, StatusCode::MOVED_PERMANENTLY, StatusCode::OK] {
        let upstream = Upstream::start().await;
        upstream.next("initialize", Answer::json("<html>hello</html>").with_status(status));
        let mut client = Client::start(&upstream.url(), None);
        let answer = client.initialize().await;
        assert_eq!(answer["error"]["code"], -32603, "{answer}");
        let talk = client.says("check that this is the address of a gateway").await;
        assert!(talk.iter().any(|line| line.contains(status.as_str())), "{talk:?}");
        assert_eq!(client.end().await.0, Some(1), "{status}");
    }
}

/// A proxy on the way says no for itself; and whoever has served is the gateway.
#[tokio::test]
async fn a_refusal_on_the_way_to_a_gateway_does_not_doubt_its_address() {
    for (is_known, status) in [
        (false, StatusCode::REQUEST_TIMEOUT),
        (false, StatusCode::PAYLOAD_TOO_LARGE),
        (false, StatusCode::TOO_MANY_REQUESTS),
        (true, StatusCode::BAD_REQUEST),
        (true, StatusCode::URI_TOO_LONG),
    ] {
        let upstream = Upstream::start().await;
        let mut client = Client::start(&upstream.url(), None);
        if is_known {
            client.initialize().await;
        }
        upstream.next("initialize", Answer::text("no").with_status(status));
        let answer = client.initialize().await;
        assert_eq!(answer["error"]["code"], -32603, "{answer}");
        let (_, _, talk) = client.end().await;
        assert!(talk.contains(status.as_str()) && !talk.contains("check that this is"), "{talk}");
    }
}

#[tokio::test]
async fn a_batch_that_waits_for_nothing_is_taken_without_a_word() {
    let upstream = Upstream::start().await;
    upstream.always("batch", |_| Answer::status(StatusCode::ACCEPTED));
    let mut client = Client::start(&upstream.url(), None);
    client
        .write(r#"[{"jsonrpc":"2.0","method":"notifications/x"},{"jsonrpc":"2.0","method":"notifications/y"}]"#)
        .await;
    upstream.arrived("batch", 1).await;
    // By then its answer is read.
    for id in 0..5 {
        client.ask(id, "initialize", hello()).await;
    }
    let (code, rest, talk) = client.end().await;
    assert_eq!((code, rest, talk.as_str()), (Some(0), Vec::new(), ""));
}

#[tokio::test]
async fn an_answer_to_another_request_makes_nobody_a_stranger() {
    let upstream = Upstream::start().await;
    let result = json!({ "content": [{ "type": "text", "text": "of somebody else" }] });
    upstream.next("initialize", Answer::result(&json!(99), &result));
    let mut client = Client::start(&upstream.url(), None);
    let answer = client.initialize().await;
    assert_eq!(answer["error"]["code"], -32603, "{answer}");
    let (code, rest, talk) = client.end().await;
    assert_eq!((code, rest, talk.as_str()), (Some(0), Vec::<Value>::new(), ""));
}
