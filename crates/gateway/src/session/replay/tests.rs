//! What is kept has bounds, and what leaves is the oldest.

use super::{ALL_BYTES, About, BYTES, EVENTS, Event, Kept, OVERHEAD, OWNER_BYTES, Place, Pot, Replay, STREAMS, lock};
use bytes::Bytes;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use vocab::ServerName;

fn about() -> About {
    About {
        server: ServerName::new("files").unwrap(),
        actions: Vec::new(),
        name: Arc::from("echo"),
        id: Box::from("1"),
    }
}

fn pot(all: &Arc<AtomicUsize>, owners: &Arc<AtomicUsize>) -> Pot {
    Pot { all: Arc::clone(all), owners: Arc::clone(owners) }
}

fn say(kept: &mut Kept, stream: u64, number: u64, length: usize) {
    kept.push(Event { stream, number, server: None, origin: None, text: Bytes::from(vec![b'x'; length]) });
}

fn numbers(kept: &Kept) -> Vec<u64> {
    kept.events.iter().map(|event| event.number).collect()
}

#[test]
fn a_session_keeps_so_many_events_and_so_many_bytes_and_the_oldest_leave() {
    let all = Arc::new(AtomicUsize::new(0));
    let replay = Replay::new(pot(&all, &Arc::default()));
    let mut kept = lock(&replay.kept);
    let stream = kept.begin(Some(about()));
    for number in 1..=EVENTS as u64 + 3 {
        say(&mut kept, stream, number, 1);
    }
    assert_eq!((kept.events.len(), numbers(&kept)[0]), (EVENTS, 4));
    say(&mut kept, stream, 1000, BYTES - 10 * OVERHEAD);
    assert!(kept.bytes <= BYTES && kept.events.len() < 10, "{}", kept.events.len());
    // What came last is kept whatever its size.
    say(&mut kept, stream, 1001, 3 * BYTES);
    assert_eq!(numbers(&kept), [1001]);
    assert_eq!(all.load(Ordering::Relaxed), kept.bytes);
    drop(kept);
    replay.clear();
    assert_eq!(all.load(Ordering::Relaxed), 0, "what is cleared costs nothing");
}

#[test]
fn all_sessions_together_keep_no_more_than_their_bound() {
    let all = Arc::new(AtomicUsize::new(0));
    let sessions: Vec<Replay> = (0..10).map(|_| Replay::new(pot(&all, &Arc::default()))).collect();
    for replay in &sessions {
        let mut kept = lock(&replay.kept);
        let stream = kept.begin(Some(about()));
        say(&mut kept, stream, 1, ALL_BYTES / 8);
    }
    assert!(all.load(Ordering::Relaxed) <= ALL_BYTES);
    assert!(lock(&sessions[9].kept).events.is_empty(), "the last one finds no room");
    drop(sessions);
    assert_eq!(all.load(Ordering::Relaxed), 0);
}

#[test]
fn what_one_principal_hoards_is_not_taken_from_another() {
    let (all, hoard) = (Arc::default(), Arc::default());
    let hoarders: Vec<Replay> = (0..10).map(|_| Replay::new(pot(&all, &hoard))).collect();
    for replay in &hoarders {
        let mut kept = lock(&replay.kept);
        let stream = kept.begin(Some(about()));
        say(&mut kept, stream, 1, OWNER_BYTES / 4);
    }
    assert!(hoard.load(Ordering::Relaxed) <= OWNER_BYTES);
    let other = Replay::new(pot(&all, &Arc::default()));
    let mut kept = lock(&other.kept);
    let stream = kept.begin(Some(about()));
    say(&mut kept, stream, 1, OWNER_BYTES / 4);
    assert_eq!(numbers(&kept), [1]);
}

#[test]
fn a_session_knows_so_many_streams_and_forgets_those_that_are_over_first() {
    let replay = Replay::new(pot(&Arc::default(), &Arc::default()));
    let mut kept = lock(&replay.kept);
    let first = kept.begin(Some(about()));
    let second = kept.begin(Some(about()));
    say(&mut kept, second, 1, 1);
    kept.stream(second).unwrap().over = true;
    for _ in 0..STREAMS - 1 {
        kept.begin(Some(about()));
    }
    assert_eq!(kept.streams.len(), STREAMS);
    assert!(kept.stream(first).is_some() && kept.stream(second).is_none() && kept.events.is_empty());
}

#[test]
fn ids_are_read_as_they_were_written_and_in_no_other_way() {
    for (id, expected) in [("3-17", Some((3, 17))), ("0-0", Some((0, 0)))] {
        assert_eq!(Place::read(id).map(|place| (place.stream, place.after)), expected);
    }
    for id in ["", "3", "3-", "-17", "03-17", "3-+17", "3-17 ", "files/3-17", "3-17-1", "99999999999999999999-1"] {
        assert!(Place::read(id).is_none(), "{id:?}");
    }
}
