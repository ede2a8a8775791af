//! Streams that leave the machinery of HTTP: the client cannot tell, and what holds for others holds for them.

use super::{ENDS, READ, SHORT, around, counts, one, reply, soon};
use crate::{reply::ReplyBody, rim::tally::Tally};
use bytes::Bytes;
use http::Request;
use hyper::body::Incoming;
use std::{
    convert::Infallible,
    future::ready,
    sync::{Arc, Mutex},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    sync::{mpsc, watch},
    task::JoinHandle,
};

/// A client, the stop, the counts, and the connection: whether its stream left, and its end.
struct Served {
    client: DuplexStream,
    stop: watch::Sender<bool>,
    tally: Arc<Tally>,
    serving: JoinHandle<bool>,
}

/// Serves these bodies, the first one first, to a client with so much room for what it has not read.
fn serve(room: usize, bodies: Vec<ReplyBody>) -> Served {
    let (client, server) = duplex(room);
    let (stop, stopping) = watch::channel(false);
    let tally = Arc::new(Tally::default());
    let counted = Arc::clone(&tally);
    let bodies = Mutex::new(bodies.into_iter());
    let answer =
        move |_| ready(Ok::<_, Infallible>(reply(bodies.lock().unwrap().next().unwrap_or(ReplyBody::empty()))));
    let serving = tokio::spawn(async move {
        let rest = one(server, answer, around(stopping, &counted, READ), ENDS).await;
        let lasts = rest.is_some();
        if let Some(rest) = rest {
            rest.await;
        }
        lasts
    });
    Served { client, stop, tally, serving }
}

async fn all(client: &mut DuplexStream) -> String {
    let mut all = Vec::new();
    soon(client.read_to_end(&mut all)).await.unwrap();
    String::from_utf8(all).unwrap()
}

#[tokio::test]
async fn a_stream_that_lasts_is_chunks_and_ends_with_the_connection() {
    let (source, events) = mpsc::channel(4);
    let mut served = serve(1 << 20, vec![ReplyBody::Stream(events)]);
    served.client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    for piece in ["data: a\n\n", "", "data: 0123456789\n\n"] {
        source.send(Bytes::from(piece)).await.unwrap();
    }
    drop(source);
    let said = all(&mut served.client).await;
    let (head, body) = said.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    for header in ["connection: close", "transfer-encoding: chunked", "date: "] {
        assert_eq!(head.matches(header).count(), 1, "{header} in {head}");
    }
    assert_eq!(body, "9\r\ndata: a\n\n\r\n12\r\ndata: 0123456789\n\n\r\n0\r\n\r\n");
    assert!(soon(served.serving).await.unwrap(), "it left");
}

#[tokio::test]
async fn its_source_hears_that_the_client_is_gone_whatever_that_said_before() {
    for last_words in [&b""[..], b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"] {
        let (source, events) = mpsc::channel(4);
        let mut served = serve(1 << 20, vec![ReplyBody::Stream(events)]);
        served.client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        source.send(Bytes::from_static(b": here\n\n")).await.unwrap();
        soon(served.client.read_u8()).await.unwrap();
        served.client.write_all(last_words).await.unwrap();
        tokio::time::sleep(SHORT / 20).await;
        assert!(!source.is_closed(), "the client is still there");
        drop(served.client);
        soon(source.closed()).await;
        assert!(soon(served.serving).await.unwrap(), "it left");
    }
}

#[tokio::test]
async fn whoever_reads_none_of_it_is_let_go_and_whoever_talks_without_end_too() {
    let (source, events) = mpsc::channel(4);
    let mut served = serve(64, vec![ReplyBody::Stream(events)]);
    served.client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    source.send(Bytes::from(vec![b'x'; 1 << 10])).await.unwrap();
    assert!(soon(served.serving).await.unwrap(), "it left");
    assert_eq!(counts(&served.tally), [("stalled-connection", 1)]);

    let (_source, events) = mpsc::channel(4);
    let mut served = serve(1 << 10, vec![ReplyBody::Stream(events)]);
    served.client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    soon(served.client.read_u8()).await.unwrap();
    let mut talked = 0_usize;
    while soon(served.client.write_all(&[b'x'; 64])).await.is_ok() {
        talked += 64;
    }
    assert!((64 << 10..128 << 10).contains(&talked), "{talked} bytes were taken");
    assert!(soon(served.serving).await.unwrap(), "it left");
    assert_eq!(counts(&served.tally), []);
}

#[tokio::test]
async fn an_answer_on_its_way_is_sent_before_the_stream_leaves() {
    // The client has room for half a head. Its first request is answered without its body being read, which lets the
    // next one begin while that answer waits.
    let (mut client, server) = duplex(64);
    let (_stop, stopping) = watch::channel(false);
    let (source, events) = mpsc::channel(4);
    let events = Mutex::new(Some(events));
    let answer = move |request: Request<Incoming>| {
        let body = if request.uri() == "/a" {
            ReplyBody::empty()
        } else {
            ReplyBody::Stream(events.lock().unwrap().take().unwrap())
        };
        async move {
            tokio::task::yield_now().await;
            drop(request);
            Ok::<_, Infallible>(reply(body))
        }
    };
    let serving = tokio::spawn(one(server, answer, around(stopping, &Arc::default(), READ), ENDS));
    let first = b"POST /a HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\nabcd";
    let asking = [&first[..], b"GET /b HTTP/1.1\r\nhost: a\r\n\r\n"].concat();
    soon(client.write_all(&asking)).await.unwrap();
    source.send(Bytes::from_static(b"last")).await.unwrap();
    drop(source);
    tokio::time::sleep(SHORT / 10).await;
    assert!(!serving.is_finished(), "the first answer is still on its way");
    let reading = all(&mut client);
    let carrying = async { soon(serving).await.unwrap().expect("it left").await };
    let (said, ()) = tokio::join!(reading, carrying);
    assert_eq!(said.matches("HTTP/1.1 200 OK\r\n").count(), 2, "{said}");
    assert!(said.ends_with("\r\n\r\n4\r\nlast\r\n0\r\n\r\n"), "{said}");
}

#[tokio::test]
async fn what_is_no_get_or_knows_no_chunks_stays() {
    for request in
        ["POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\nconnection: close\r\n\r\n", "GET / HTTP/1.0\r\n\r\n"]
    {
        let (source, events) = mpsc::channel(4);
        let mut served = serve(1 << 20, vec![ReplyBody::Stream(events)]);
        served.client.write_all(request.as_bytes()).await.unwrap();
        source.send(Bytes::from_static(b"last")).await.unwrap();
        drop(source);
        let said = all(&mut served.client).await;
        assert_eq!(said.contains("chunked"), request.contains("1.1"), "{said}");
        assert!(said.contains("last"), "{said}");
        assert!(!soon(served.serving).await.unwrap(), "it stayed");
    }
}

#[tokio::test]
async fn a_stop_lets_the_stream_come_to_its_end() {
    let (source, events) = mpsc::channel(4);
    let mut served = serve(1 << 20, vec![ReplyBody::Stream(events)]);
    served.client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    soon(served.client.read_u8()).await.unwrap();
    served.stop.send_replace(true);
    source.send(Bytes::from_static(b"last")).await.unwrap();
    drop(source);
    assert!(all(&mut served.client).await.ends_with("4\r\nlast\r\n0\r\n\r\n"));
    assert!(soon(served.serving).await.unwrap(), "it left");
}

#[tokio::test]
async fn a_stream_that_begins_while_the_gateway_stops_leaves_too() {
    let (client, server) = duplex(1 << 20);
    let (stop, stopping) = watch::channel(false);
    let (source, events) = mpsc::channel(4);
    let once = Mutex::new(Some((events, stop)));
    let answer = move |_| {
        let once = once.lock().unwrap().take();
        async move {
            let Some((events, stop)) = once else { return Ok(reply(ReplyBody::empty())) };
            // Known to whoever serves before there is an answer.
            stop.send_replace(true);
            tokio::task::yield_now().await;
            Ok::<_, Infallible>(reply(ReplyBody::Stream(events)))
        }
    };
    let mut client = client;
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let rest = soon(one(server, answer, around(stopping, &Arc::default(), READ), ENDS)).await.expect("it left");
    drop(source);
    soon(rest).await;
    assert!(all(&mut client).await.ends_with("\r\n\r\n0\r\n\r\n"));
}
