//! Hostile lines from the client, and hostile answers from the gateway: what cannot be read is answered and goes no further.

use super::{Client, call_of_echo, peak};
use serde_json::{Value, json};
use testkit::{Answer, Upstream};
use tokio::io::AsyncWriteExt;

/// The longest line is 16 MiB, the longest answer 64 MiB; a build with debug assertions holds a few copies.
const MEGABYTES: u64 = 160;
const MEGABYTES_OF_ANSWERS: u64 = 320;

#[tokio::test]
async fn lines_that_cannot_be_read_are_answered_and_go_no_further() {
    let upstream = Upstream::start().await;
    let mut client = Client::legacy(&upstream.url(), None).await;
    let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
    for (id, what, code) in [
        (10, format!("\"{}\"", "x".repeat(17 << 20)), -32600),
        (11, deep, -32600),
        (12, r#"{"a":1,"\u0061":2}"#.to_owned(), -32600),
        (13, r#""\ud800""#.to_owned(), -32700),
        (14, "NaN".to_owned(), -32700),
    ] {
        let line = call_of_echo(id).replace("{}", &format!("{{\"a\":{what}}}"));
        // Not noted: what is judged is what the gateway was told, and it is told nothing.
        let input = client.input.as_mut().unwrap();
        input.write_all(line.as_bytes()).await.unwrap();
        input.write_all(b"\n").await.unwrap();
        let answer = client.hear().await;
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(id), &json!(code)), "{answer}");
    }
    assert_eq!(upstream.seen("tools/call").len(), 0);
    assert_eq!(client.call(20, json!({"n": 1})).await["error"], Value::Null);
    // A line without end, and slow: it is skimmed, and not kept.
    let piece = vec![b'x'; 1 << 20];
    let input = client.input.as_mut().unwrap();
    input.write_all(br#"{"jsonrpc":"2.0","id":21,"method":"tools/call","params":{"a":""#).await.unwrap();
    for _ in 0..64 {
        input.write_all(&piece).await.unwrap();
        input.flush().await.unwrap();
    }
    input.write_all(b"\"}}\n").await.unwrap();
    assert_eq!(client.hear().await["id"], 21);
    assert_eq!(client.call(22, json!({"n": 2})).await["error"], Value::Null);
    let most = peak(client.process.id().unwrap());
    println!("{most} MB at most");
    assert!(most < MEGABYTES, "{most} MB");
}

#[tokio::test]
async fn answers_that_cannot_be_read_are_errors_to_the_client() {
    let upstream = Upstream::start().await;
    let mut client = Client::legacy(&upstream.url(), None).await;
    let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
    let answer = |id: u64, result: &str| Answer::json(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#));
    for (id, what) in [
        (10, Answer::oversized(&json!(10), 65 << 20)),
        (11, answer(11, &deep)),
        (12, answer(12, r#"{"content":[],"a":1,"a":2}"#)),
        (13, Answer::endless(format!("data: {}", "x".repeat(1 << 16)))),
        (14, Answer::endless(format!("data: {}\n", "x".repeat(1 << 16)))),
        (15, Answer::endless("[".repeat(1 << 16)).header("content-type", "application/json")),
    ] {
        upstream.next("tools/call", what);
        let told = client.call(id, json!({})).await;
        assert_eq!(told["id"], id, "{told}");
        assert!(told["error"].is_object(), "{told}");
    }
    assert_eq!(client.call(20, json!({"n": 1})).await["error"], Value::Null);
    let most = peak(client.process.id().unwrap());
    println!("{most} MB at most");
    assert!(most < MEGABYTES_OF_ANSWERS, "{most} MB");
}
