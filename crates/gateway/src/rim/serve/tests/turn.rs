//! Clients whose turn it is: how long they may take, and that a stop does not wait for them.

use super::{ENDS, Patience, READ, SHORT, around, bytes, counts, one, reply, soon};
use crate::{
    reply::ReplyBody,
    rim::{serve::stopped, tally::Tally},
};
use bytes::Bytes;
use futures_util::{FutureExt, future::join_all};
use std::{
    convert::Infallible,
    future::ready,
    pin::pin,
    sync::{Arc, Mutex},
    time::Instant,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::timeout,
};

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const POST: &[u8] = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n";
/// The client's turn is short.
const TURN: Patience = Patience { stalled: super::LONG, head: SHORT, ..READ };

/// A connection on which each request is answered with five bytes, the stop of its gateway, and its end.
fn serve(patience: Patience) -> (DuplexStream, watch::Sender<bool>, JoinHandle<()>) {
    let (client, server) = duplex(1 << 16);
    let (stop, stopping) = watch::channel(false);
    let serving = tokio::spawn(async move {
        let tally = Arc::new(Tally::default());
        let answer = |_| ready(Ok::<_, Infallible>(reply(bytes(5))));
        assert!(one(server, answer, around(stopping, &tally, patience), ENDS).await.is_none());
        assert_eq!(counts(&tally), []);
    });
    (client, stop, serving)
}

/// What the last bytes of an answer are.
const FIVE: &[u8] = b"\r\n\r\nxxxxx";

/// Reads until something ends so.
async fn until(client: &mut DuplexStream, end: &[u8]) {
    let mut read = Vec::new();
    while !read.ends_with(end) {
        assert!(soon(client.read_buf(&mut read)).await.unwrap() > 0, "{read:?}");
    }
}

#[tokio::test]
async fn a_head_that_does_not_come_to_its_end_is_not_waited_for() {
    let half = b"GET / HTTP/1.1\r\nho";
    let silent = [(0, &b""[..]), (0, half), (1, b"\r\n"), (2, b""), (2, half)].map(|(before, said)| async move {
        let begun = Instant::now();
        let (mut client, _stop, serving) = serve(TURN);
        for _ in 0..before {
            client.write_all(POST).await.unwrap();
            until(&mut client, FIVE).await;
        }
        client.write_all(said).await.unwrap();
        soon(serving).await.unwrap();
        assert!(begun.elapsed() >= SHORT, "{before} {said:?}");
        let mut rest = Vec::new();
        assert_eq!(client.read_to_end(&mut rest).await.unwrap(), 0, "nothing is said to it");
    });
    join_all(silent).await;
}

#[tokio::test]
async fn a_head_that_comes_byte_by_byte_gains_no_time() {
    let (mut client, _stop, serving) = serve(TURN);
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nx-long: ").await.unwrap();
    let mut turns = tokio::time::interval(SHORT / 16);
    let talking = async {
        while client.write_all(b"x").await.is_ok() {
            turns.tick().await;
        }
    };
    soon(talking).await;
    soon(serving).await.unwrap();
}

#[tokio::test]
async fn who_sends_what_is_no_request_may_take_its_time_to_read_so() {
    let (mut client, server) = duplex(16);
    let (_stop, stopping) = watch::channel(false);
    let patience = Patience { head: SHORT / 8, ..TURN };
    let answer = |_| ready(Ok::<_, Infallible>(reply(bytes(5))));
    let serving = one(server, answer, around(stopping, &Arc::default(), patience), ENDS);
    let reading = async {
        client.write_all(b"no request\r\n\r\n").await.unwrap();
        let mut read = Vec::new();
        let mut turns = tokio::time::interval(SHORT / 8);
        while client.read_buf(&mut read).await.unwrap() > 0 {
            turns.tick().await;
        }
        String::from_utf8(read).unwrap()
    };
    let (_, read) = soon(async { tokio::join!(serving, reading) }).await;
    assert!(read.starts_with("HTTP/1.1 400 ") && read.ends_with("\r\n\r\n"), "{read}");
}

#[tokio::test]
async fn an_answer_may_take_longer_than_a_head_and_the_next_head_has_its_own_time() {
    let (mut client, server) = duplex(1 << 16);
    let (_stop, stopping) = watch::channel(false);
    let (begin, held) = oneshot::channel();
    let (pieces, stream) = mpsc::channel(1);
    let bodies = Mutex::new(vec![(None, bytes(5)), (Some(held), ReplyBody::Stream(stream))]);
    let answering = move |_| {
        let next = bodies.lock().unwrap().pop();
        async move {
            let (held, body) = next.unwrap();
            if let Some(held) = held {
                let _ = held.await;
            }
            Ok::<_, Infallible>(reply(body))
        }
    };
    let serving = tokio::spawn(one(server, answering, around(stopping, &Arc::default(), TURN), ENDS));
    client.write_all(POST).await.unwrap();
    let longer = SHORT * 5 / 4;
    assert!(timeout(longer, client.read_u8()).await.is_err(), "it was answered, or cut, before it could be");
    begin.send(()).unwrap();
    pieces.send(Bytes::from_static(b"xx")).await.unwrap();
    until(&mut client, b"\r\nxx\r\n").await;
    assert!(timeout(longer, client.read_u8()).await.is_err(), "its stream was cut");
    drop(pieces);
    until(&mut client, b"0\r\n\r\n").await;
    client.write_all(POST).await.unwrap();
    until(&mut client, FIVE).await;
    let answered = Instant::now();
    assert!(soon(serving).await.unwrap().is_none());
    assert!(answered.elapsed() >= SHORT / 2, "{:?}", answered.elapsed());
}

#[tokio::test]
async fn an_idle_connection_hears_of_a_stop_at_once() {
    for before in 0..3 {
        let (mut client, stop, serving) = serve(READ);
        // Woken so often that whatever it waits for was asked more than once.
        for _ in 0..before {
            client.write_all(POST).await.unwrap();
            until(&mut client, FIVE).await;
        }
        stop.send_replace(true);
        if before == 0 {
            // Whoever has not asked yet may do so, once.
            client.write_all(GET).await.unwrap();
        }
        soon(serving).await.unwrap();
    }
}

#[tokio::test]
async fn a_stop_wakes_whoever_waits_for_it_last() {
    let (stop, mut stopping) = watch::channel(false);
    let mut waiting = pin!(stopped(&mut stopping));
    assert!(waiting.as_mut().now_or_never().is_none(), "asked by somebody whom nobody can wake");
    let stops = async {
        tokio::task::yield_now().await;
        stop.send_replace(true);
    };
    soon(async { tokio::join!(waiting, stops) }).await;

    let (stop, mut stopping) = watch::channel(false);
    drop(stop);
    soon(stopped(&mut stopping)).await;
}
