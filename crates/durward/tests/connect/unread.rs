//! Lines that are no message: each gets one error that a client can read, nothing of it is passed on, and the next line is read.

use super::{Client, call_of_echo, hello, request};
use serde_json::{Value, json};
use testkit::{Answer, Upstream, schema};
use tokio::io::AsyncWriteExt;

impl Client {
    /// Bytes that are not noted: what is judged is what they are answered with.
    async fn say(&mut self, line: &[u8]) {
        let input = self.input.as_mut().unwrap();
        input.write_all(line).await.unwrap();
        input.write_all(b"\n").await.unwrap();
        input.flush().await.unwrap();
    }

    /// Says a line, and hears the one error that is all there is to hear. It names this request, or none.
    async fn refused(&mut self, line: &[u8], id: Option<&Value>) -> i64 {
        self.say(line).await;
        let error = self.hear().await;
        let line = String::from_utf8_lossy(line);
        assert_eq!(error.get("id"), id, "{line} {error}");
        for revision in ["2025-11-25", "2026-07-28"] {
            assert_eq!(schema::faults(revision, &error, None), Vec::<String>::new(), "{line} {error}");
        }
        // Whatever else there was to hear would come before this.
        assert_eq!(self.ask("next", "ping", json!({})).await["id"], "next", "{line}");
        error["error"]["code"].as_i64().unwrap()
    }
}

async fn both_eras() -> (Upstream, [Client; 2]) {
    let upstream = Upstream::start().await;
    upstream.always("ping", |seen| Answer::result(&seen.id(), &json!({})));
    let clients = [Client::start(&upstream.url(), None), Client::legacy(&upstream.url(), None).await];
    (upstream, clients)
}

#[tokio::test]
async fn a_line_that_is_no_message_gets_one_error_that_names_no_request() {
    let (upstream, clients) = both_eras().await;
    for mut client in clients {
        for (line, code) in [
            (&b"5"[..], -32600),
            (b"null", -32600),
            (b"true", -32600),
            (b"\"text\"", -32600),
            (b"[]", -32600),
            (b"[5]", -32600),
            (b"{}", -32600),
            (br#"{"jsonrpc":"2.0","id":6}"#, -32600),
            (br#"{"jsonrpc":"2.0","method":1,"params":"bar"}"#, -32600),
            (b"\xff\xfe", -32700),
            (b"{\"jsonrpc\":\"2.0\",\"method\":\"\xff\"}", -32700),
            (br#"{"jsonrpc":"2.0","method":"tools/call","params":{"na"#, -32700),
            (b"not json", -32700),
        ] {
            assert_eq!(client.refused(line, None).await, code, "{}", String::from_utf8_lossy(line));
        }
        assert_eq!(client.end().await.0, Some(0));
    }
    assert!(upstream.seen("tools/call").is_empty() && upstream.seen("response").is_empty());
}

#[tokio::test]
async fn a_request_is_answered_whatever_its_id_is() {
    let (upstream, clients) = both_eras().await;
    for mut client in clients {
        for id in ["null", "true", "false", "{}", r#"{"id":1}"#, "[1]", "1.5"] {
            let line = call_of_echo(7).replace("\"id\":7", &format!("\"id\":{id}"));
            assert_eq!(client.refused(line.as_bytes(), None).await, -32600, "{id}");
        }
        // An integer to its sender.
        let line = call_of_echo(7).replace("\"id\":7", "\"id\":7.0");
        assert_eq!(client.refused(line.as_bytes(), Some(&json!(7.0))).await, -32600);
        assert_eq!(client.end().await.0, Some(0));
    }
    assert!(upstream.seen("tools/call").is_empty());
}

#[tokio::test]
async fn two_requests_on_one_line_are_none_and_neither_is_blamed_alone() {
    let (upstream, clients) = both_eras().await;
    for mut client in clients {
        let two = format!("{}{}", call_of_echo(7), call_of_echo(8));
        assert_eq!(client.refused(two.as_bytes(), None).await, -32700);
        let twice = format!("{} {}", call_of_echo(7), call_of_echo(7));
        assert_eq!(client.refused(twice.as_bytes(), None).await, -32700);
        // Of one request there is no doubt, whatever stands behind it.
        let line = format!("{}{}", call_of_echo(7), r#"{"jsonrpc":"2.0","method":"notifications/x"}"#);
        assert_eq!(client.refused(line.as_bytes(), Some(&json!(7))).await, -32700);
        let text = request("hello", "initialize", hello()).to_string();
        assert_eq!(client.refused(format!("{text}{text}").as_bytes(), None).await, -32700);
        assert_eq!(client.end().await.0, Some(0));
    }
    assert!(upstream.seen("tools/call").is_empty() && upstream.seen("notifications/x").is_empty());
}
