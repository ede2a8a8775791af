mod lasting;
mod turn;

use super::{Around, Patience, many, one};
use crate::{
    absent::{Here, Presence},
    clock::SystemClock,
    reply::{Reply, ReplyBody, Sending},
    rim::{serve::Ends, tally::Tally},
};
use bytes::Bytes;
use http::{Request, StatusCode};
use std::{
    convert::Infallible,
    future::ready,
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

const ENDS: Ends = Ends { peer: IpAddr::V4(Ipv4Addr::LOCALHOST), dialled: None, may_name: true };
/// A second stands for a minute.
const SHORT: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_mins(5);
/// Waits only for clients that do not read.
const READ: Patience = Patience { stalled: SHORT, head: LONG, first: LONG, idle: LONG, farewell: LONG };

fn counts(tally: &Tally) -> Vec<(&'static str, u64)> {
    tally.counts().filter(|(_, count)| *count > 0).map(|([reason], count)| (reason, count)).collect()
}

fn reply(body: ReplyBody) -> Reply<Sending> {
    let here = Here::beside(&Arc::new(Presence::default()));
    Reply::new(Sending::new(body, here))
}

fn bytes(count: usize) -> ReplyBody {
    ReplyBody::from(Bytes::from(vec![b'x'; count]))
}

fn around(stopping: watch::Receiver<bool>, tally: &Arc<Tally>, patience: Patience) -> Around {
    Around { stopping, tally: Arc::clone(tally), clock: Arc::new(SystemClock::new()), patience }
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(SHORT * 10, what).await.expect("in time")
}

#[tokio::test]
async fn whoever_reads_nothing_over_http1_is_let_go() {
    let (mut client, server) = duplex(1024);
    let (_stop, stopping) = watch::channel(false);
    let tally = Arc::new(Tally::default());
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    soon(one(server, |_| ready(Ok::<_, Infallible>(reply(bytes(1 << 20)))), around(stopping, &tally, READ), ENDS))
        .await;
    assert_eq!(counts(&tally), [("stalled-connection", 1)]);
}

#[tokio::test]
async fn whoever_reads_slowly_over_http1_gets_all_of_it() {
    let (mut client, server) = duplex(1024);
    let (_stop, stopping) = watch::channel(false);
    let tally = Arc::new(Tally::default());
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    // Until all of it is taken it is not the client's turn.
    let patience = Patience { stalled: SHORT / 2, head: SHORT / 8, ..READ };
    let serving =
        one(server, |_| ready(Ok::<_, Infallible>(reply(bytes(8 << 10)))), around(stopping, &tally, patience), ENDS);
    let reading = async {
        let mut all = Vec::new();
        let mut turns = tokio::time::interval(SHORT / 8);
        while client.read_buf(&mut all).await.unwrap() > 0 {
            turns.tick().await;
        }
        all.len()
    };
    let (_, read) = soon(async { tokio::join!(serving, reading) }).await;
    assert!(read > 8 << 10 && counts(&tally).is_empty(), "{read} {:?}", counts(&tally));
}

/// A client of HTTP/2 that lets so many bytes of an answer come, and no more unless it says so.
async fn narrow(
    window: u32,
    patience: Patience,
    bodies: Vec<ReplyBody>,
) -> (h2::client::SendRequest<Bytes>, Arc<Tally>, oneshot::Receiver<()>) {
    let (client, server) = duplex(1 << 20);
    let tally = Arc::new(Tally::default());
    let (ended, end) = oneshot::channel();
    let counted = Arc::clone(&tally);
    tokio::spawn(async move {
        let (_stop, stopping) = watch::channel(false);
        let bodies = Mutex::new(bodies);
        let answer =
            move |_| ready(Ok::<_, Infallible>(reply(bodies.lock().unwrap().pop().unwrap_or(ReplyBody::empty()))));
        many(server, answer, around(stopping, &counted, patience), ENDS).await;
        let _ = ended.send(());
    });
    let (sender, connection) =
        h2::client::Builder::new().initial_window_size(window).handshake::<_, Bytes>(client).await.unwrap();
    tokio::spawn(connection);
    (sender.ready().await.unwrap(), tally, end)
}

fn get() -> Request<()> {
    Request::get("http://localhost/").body(()).unwrap()
}

#[tokio::test]
async fn an_answer_whose_window_stays_shut_is_ended_and_no_other() {
    // A stream of events, whose source hears that nobody takes them, and an answer that is whole.
    let (source, events) = mpsc::channel(1);
    let bodies = vec![bytes(100), bytes(1 << 20), ReplyBody::Stream(events)];
    let (mut sender, tally, _end) = narrow(1024, READ, bodies).await;
    let mut answers = Vec::new();
    for _ in 0..2 {
        let (answer, _) = sender.send_request(get(), true).unwrap();
        answers.push(answer.await.unwrap().into_body());
    }
    let saying = async { while source.send(Bytes::from(vec![b'x'; 512])).await.is_ok() {} };
    soon(saying).await;
    for answer in &mut answers {
        let ended = soon(async {
            loop {
                match answer.data().await {
                    Some(Ok(_)) => {}
                    Some(Err(fault)) => return fault.reason(),
                    None => return None,
                }
            }
        });
        assert_eq!(ended.await, Some(h2::Reason::CANCEL), "its stream is reset");
    }
    let (answer, _) = sender.send_request(get(), true).unwrap();
    let answer = soon(answer).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK, "the connection carries the next one");
    let mut body = answer.into_body();
    assert_eq!(soon(body.data()).await.unwrap().unwrap().len(), 100);
    assert_eq!(counts(&tally), [("stalled-answer", 2)]);
}

#[tokio::test]
async fn an_answer_that_is_taken_bit_by_bit_comes_to_its_end() {
    let (mut sender, tally, _end) = narrow(4096, Patience { stalled: SHORT / 2, ..READ }, vec![bytes(64 << 10)]).await;
    let (answer, _) = sender.send_request(get(), true).unwrap();
    let mut body = answer.await.unwrap().into_body();
    let mut turns = tokio::time::interval(SHORT / 8);
    let mut read = 0;
    while let Some(data) = soon(body.data()).await {
        read += data.as_ref().unwrap().len();
        turns.tick().await;
        body.flow_control().release_capacity(data.unwrap().len()).unwrap();
    }
    assert_eq!((read, counts(&tally)), (64 << 10, Vec::new()));
}

#[tokio::test]
async fn an_answer_of_one_piece_that_is_not_taken_ends_the_connection() {
    let (mut sender, tally, end) = narrow(1, READ, vec![bytes(100)]).await;
    let (answer, _) = sender.send_request(get(), true).unwrap();
    let answer = answer.await.unwrap();
    soon(end).await.unwrap();
    assert_eq!(counts(&tally), [("stalled-connection", 1), ("stalled-answer", 1)]);
    drop(answer);
}

#[tokio::test]
async fn a_call_that_crosses_the_farewell_is_served_to_its_end() {
    let (mut client, server) = duplex(1 << 20);
    let (_stop, stopping) = watch::channel(false);
    let patience = Patience { stalled: LONG, head: LONG, first: SHORT / 4, idle: SHORT / 4, farewell: SHORT / 4 };
    let (go, held) = oneshot::channel::<()>();
    let (begun, begins) = oneshot::channel();
    let once = Mutex::new(Some((begun, held)));
    let answer = move |_| {
        let once = once.lock().unwrap().take();
        async move {
            if let Some((begun, held)) = once {
                let _ = begun.send(());
                let _ = held.await;
            }
            Ok::<_, Infallible>(reply(bytes(5)))
        }
    };
    let serving = tokio::spawn(many(server, answer, around(stopping, &Arc::default(), patience), ENDS));
    client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    client.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    soon(until(&mut client, 7)).await;
    // GET / of localhost, with the end of the stream and of its head.
    let head = [&[0x82, 0x86, 0x84, 0x01, 9][..], b"localhost"].concat();
    client.write_all(&[&[0, 0, 14, 1, 5, 0, 0, 0, 1][..], &head].concat()).await.unwrap();
    soon(begins).await.unwrap();
    // Far longer than the farewell.
    assert!(timeout(SHORT, until(&mut client, 0)).await.is_err(), "it was cut, or answered before it could be");
    go.send(()).unwrap();
    assert_eq!(soon(until(&mut client, 0)).await, b"xxxxx");
    soon(serving).await.unwrap();
}

/// The payload of the next frame of this kind.
async fn until(stream: &mut DuplexStream, wanted: u8) -> Vec<u8> {
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.expect("the connection lives");
        let [a, b, c, kind, ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        stream.read_exact(&mut payload).await.unwrap();
        if kind == wanted {
            return payload;
        }
    }
}
