//! What is kept, what is not, and what is gone when it is erased.

use super::{shelf::LONGEST, *};
use crate::{
    Commitment, Days, Erased, Erasure, Fingerprint, Log, Reader, Tree,
    fixture::{Place, call, call_id, tenant},
    note::tests::signer,
    record::Leaf,
    verify,
};
use std::{collections::HashMap, fs, path::PathBuf};
use vocab::Digest;

const MINUTE: i64 = 60;
const DAYS: i64 = 86_400;

/// Seals with a key that lies in the open: sealing well is the vault's trade. Says no if label or text are others.
fn sealer() -> Sealer {
    let keys: Arc<Mutex<HashMap<Vec<u8>, u8>>> = Arc::default();
    let made = Arc::clone(&keys);
    Sealer {
        make: Box::new(move |label| {
            let mut keys = lock(&made);
            let key = u8::try_from(keys.len() + 1)?;
            keys.insert(label.to_vec(), key);
            Ok(vec![key; 4])
        }),
        open: Box::new(move |_, sealed| {
            let key = *sealed.first().ok_or("no key")?;
            let seal: Seal = Box::new(move |label, text| {
                let seal = Digest::of_parts(&[label, text]);
                Ok([seal.as_bytes(), text].concat().iter().map(|byte| byte ^ key).collect())
            });
            let open: Seal = Box::new(move |label, sealed| {
                let plain: Vec<u8> = sealed.iter().map(|byte| byte ^ key).collect();
                match plain.split_at_checked(32) {
                    Some((seal, text)) if seal == Digest::of_parts(&[label, text]).as_bytes() => Ok(text.to_vec()),
                    _ => Err("it was changed".into()),
                }
            });
            Ok(DayKey { seal, open })
        }),
    }
}

const KEEPING: Keeping = Keeping { time: Duration::from_hours(48), per_day: 1 << 20 };

fn open(place: &Place) -> Log {
    let log = place.open().with_texts(sealer());
    texts(&log).set(Some(KEEPING)).unwrap();
    log
}

fn texts(log: &Log) -> &Texts {
    log.texts().unwrap()
}

/// So many seconds after the beginning of 2026-11-18.
fn on(seconds: i64) -> Timestamp {
    Day::of(Timestamp::from_seconds(1_795_000_000)).begin().plus(Duration::from_secs(u64::try_from(seconds).unwrap()))
}

fn keep(log: &Log, n: u64, at: Timestamp, text: impl Into<Bytes>) {
    texts(log).keep(Text { call: call_id(n), at, side: Side::Arguments, text: text.into() });
}

fn read(log: &Log, n: u64, at: Timestamp) -> Kept {
    texts(log).read(&call_id(n), at, Side::Arguments).unwrap()
}

fn commit(log: &Log, n: u64, at: Timestamp, text: &[u8]) -> Commitment {
    log.salts().of(&call_id(n), at).unwrap().commit(Side::Arguments, &Fingerprint::of(text))
}

/// What is gone, of an erasure that left nothing.
fn erased(erasure: Erasure) -> Vec<Erased> {
    assert!(erasure.fault.is_none(), "{:?}", erasure.fault);
    erasure.days
}

fn names(folder: PathBuf) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn kept(text: &str) -> Kept {
    Kept::Text { text: text.as_bytes().to_vec(), whole: text.len() as u64 }
}

fn folder(place: &Place, day: &str) -> PathBuf {
    place.path().join("text").join(tenant().as_str()).join(day)
}

#[test]
fn a_text_is_kept_beside_the_tree_and_found_again_after_a_restart() {
    let place = Place::new();
    let log = open(&place);
    keep(&log, 1, on(0), "{\"id\":1}");
    texts(&log).keep(Text { call: call_id(1), at: on(0), side: Side::Result, text: "answer".into() });
    keep(&log, 2, on(DAYS), "tomorrow");
    keep(&log, 3, on(0), "today again");
    assert_eq!(read(&log, 1, on(0)), kept("{\"id\":1}"));
    assert_eq!(texts(&log).read(&call_id(1), on(0), Side::Result).unwrap(), kept("answer"));
    assert_eq!(read(&log, 9, on(0)), Kept::Absent);
    assert_eq!(read(&log, 1, on(5 * DAYS)), Kept::Absent);
    drop(log);

    let log = open(&place);
    keep(&log, 4, on(1), "after the restart");
    for (n, at, text) in
        [(1, 0, "{\"id\":1}"), (2, DAYS, "tomorrow"), (3, 0, "today again"), (4, 1, "after the restart")]
    {
        assert_eq!(read(&log, n, on(at)), kept(text));
    }
    assert_eq!(texts(&log).stats(), TextStats { kept: 1, ..TextStats::default() });
}

#[test]
fn nothing_is_kept_unless_it_is_asked_for() {
    let place = Place::new();
    let log = place.open().with_texts(sealer());
    keep(&log, 1, on(0), "private");
    texts(&log).set(Some(KEEPING)).unwrap();
    keep(&log, 2, on(0), "wanted");
    texts(&log).set(None).unwrap();
    keep(&log, 3, on(0), "private again");
    assert_eq!((read(&log, 1, on(0)), read(&log, 3, on(0))), (Kept::Absent, Kept::Absent));
    assert_eq!(read(&log, 2, on(0)), kept("wanted"), "what was handed over while it was asked for");
    let untouched = Place::new();
    drop(untouched.open().with_texts(sealer()));
    assert!(!untouched.file("text").exists());
}

#[test]
fn the_thread_writes_without_being_asked() {
    let place = Place::new();
    let log = open(&place);
    for n in 0..3 {
        keep(&log, n, on(0), "text");
        let waited = Instant::now();
        while texts(&log).stats().kept <= n {
            assert!(waited.elapsed() < Duration::from_secs(10), "{:?}", texts(&log).stats());
            thread::yield_now();
        }
    }
}

#[test]
fn a_long_text_is_cut_between_characters_and_says_how_long_it_was() {
    let place = Place::new();
    let log = open(&place);
    let long = format!("{}äöü", "x".repeat(LONGEST - 1));
    keep(&log, 1, on(0), long.clone());
    let Kept::Text { text, whole } = read(&log, 1, on(0)) else { panic!("it is kept") };
    assert_eq!((text.len(), whole), (LONGEST - 1, long.len() as u64));
    assert!(long.as_bytes().starts_with(&text));
}

#[test]
fn a_full_day_takes_no_more_and_loses_nothing_it_has() {
    let place = Place::new();
    let log = open(&place);
    texts(&log).set(Some(Keeping { per_day: 4096, ..KEEPING })).unwrap();
    for n in 0..100 {
        keep(&log, n, on(0), "x".repeat(100));
    }
    keep(&log, 200, on(DAYS), "another day has room of its own");
    texts(&log).flush();
    let stats = texts(&log).stats();
    assert!(stats.kept > 10 && stats.full > 50, "{stats:?}");
    assert_eq!(stats.kept + stats.full, 101);
    assert!(matches!(read(&log, 0, on(0)), Kept::Text { .. }));
    assert_eq!(read(&log, 99, on(0)), Kept::Absent);
    drop(log);
    let size: u64 =
        fs::read_dir(folder(&place, "2026-11-18")).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    assert!(size <= 4200, "{size}");
    // What earlier files hold counts too.
    let log = open(&place);
    texts(&log).set(Some(Keeping { per_day: 4096, ..KEEPING })).unwrap();
    keep(&log, 300, on(0), "x".repeat(300));
    texts(&log).flush();
    assert_eq!(texts(&log).stats(), TextStats { full: 1, ..TextStats::default() });
}

#[test]
fn what_waits_is_bounded() {
    let place = Place::new();
    let log = open(&place);
    // The writer cannot go on while its files are held.
    let shelf = lock(&texts(&log).shared.shelf);
    for n in 0..QUEUED as u64 + 10 {
        keep(&log, n, on(0), "text");
    }
    keep(&log, 0, on(0), "x".repeat(QUEUED_BYTES));
    let crowded = texts(&log).stats().crowded;
    assert!(crowded >= 10, "{crowded}");
    drop(shelf);
    texts(&log).flush();
    assert_eq!(texts(&log).stats().crowded, crowded);
    keep(&log, 1, on(MINUTE), "there is room again");
    assert_eq!(read(&log, 1, on(MINUTE)), kept("there is room again"));
}

#[test]
fn a_full_disk_costs_texts_and_no_record() {
    let place = Place::new();
    let disk = Disk::default();
    let mut log = place.open();
    log = log.with_texts(sealer());
    let full = Texts::new(place.path(), &tenant(), sealer(), disk.clone());
    full.set(Some(KEEPING)).unwrap();
    let text = |n| Text { call: call_id(n), at: on(0), side: Side::Result, text: "text".into() };
    full.keep(text(1));
    full.flush();
    disk.full.store(true, Ordering::SeqCst);
    full.keep(text(2));
    full.flush();
    assert_eq!((full.stats().kept, full.stats().failed), (1, 1));
    assert!(log.healthy().is_ok());
    log.append_unwatched(Leaf::Call(call(1))).unwrap();

    // What half of the lost one left behind does not hide what comes after it.
    disk.full.store(false, Ordering::SeqCst);
    full.keep(text(3));
    let read = |n| full.read(&call_id(n), on(0), Side::Result).unwrap();
    assert_eq!((read(1), read(2), read(3)), (kept("text"), Kept::Absent, kept("text")));
}

#[test]
fn a_torn_end_hides_nothing_before_it() {
    let place = Place::new();
    let log = open(&place);
    keep(&log, 1, on(0), "whole");
    keep(&log, 2, on(0), "torn");
    drop(log);
    let file = folder(&place, "2026-11-18").join("0000");
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
    let log = open(&place);
    keep(&log, 3, on(0), "later");
    assert_eq!((read(&log, 1, on(0)), read(&log, 2, on(0))), (kept("whole"), Kept::Absent));
    assert_eq!(read(&log, 3, on(0)), kept("later"));
    // Any bytes at all are read without a fault.
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 0x55;
        fs::write(&file, &changed).unwrap();
        let found = read(&log, 1, on(0));
        assert!([kept("whole"), Kept::Absent, Kept::Damaged].contains(&found), "{at}: {found:?}");
    }
}

#[test]
fn a_text_in_another_calls_place_does_not_open() {
    let place = Place::new();
    let log = open(&place);
    keep(&log, 1, on(0), "delete all");
    keep(&log, 2, on(0), "look at it");
    texts(&log).flush();
    let file = folder(&place, "2026-11-18").join("0000");
    let bytes = fs::read(&file).unwrap();
    // Only the ids of the calls are exchanged.
    let (one, two) = (*call_id(1).as_bytes(), *call_id(2).as_bytes());
    let exchanged: Vec<u8> = {
        let mut bytes = bytes;
        let places: Vec<usize> = (0..bytes.len() - 16).filter(|at| bytes[*at..at + 16] == one).collect();
        let others: Vec<usize> = (0..bytes.len() - 16).filter(|at| bytes[*at..at + 16] == two).collect();
        bytes[places[0]..places[0] + 16].copy_from_slice(&two);
        bytes[others[0]..others[0] + 16].copy_from_slice(&one);
        bytes
    };
    fs::write(&file, exchanged).unwrap();
    assert_eq!((read(&log, 1, on(0)), read(&log, 2, on(0))), (Kept::Damaged, Kept::Damaged));
}

#[tokio::test]
async fn an_erased_day_is_gone_and_the_tree_verifies() {
    let place = Place::new();
    let log = open(&place);
    let salted = commit(&log, 1, on(0), b"gone");
    keep(&log, 1, on(0), "gone");
    keep(&log, 2, on(DAYS), "stays");
    log.append_unwatched(Leaf::Call(call(1))).unwrap();
    log.flush().await.unwrap();
    texts(&log).flush();

    let day = Day::of(on(0));
    let gone = erased(log.erase(Days::One(day), on(2 * DAYS)));

    assert_eq!(gone, [Erased { day, digests: true }]);
    assert_eq!((read(&log, 1, on(0)), read(&log, 2, on(DAYS))), (Kept::Erased, kept("stays")));
    let left: Vec<_> = fs::read_dir(folder(&place, "2026-11-18")).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert_eq!(left, ["erased"], "no key, no texts");
    assert!(log.salts().matches(&salted, &call_id(1), on(0), Side::Arguments, b"gone").is_err());
    // What comes too late for that day is not kept.
    keep(&log, 3, on(1), "late");
    assert_eq!(read(&log, 3, on(1)), Kept::Erased);
    assert_eq!(texts(&log).stats().late, 1);
    log.flush().await.unwrap();
    verify(place.path(), &signer(1).public, None, None).unwrap();
    assert_eq!(Reader::open(place.path(), &Tree::Tenant(tenant())).unwrap().size(), 1);
    drop(log);
    assert_eq!(read(&open(&place), 1, on(0)), Kept::Erased);
}

#[test]
fn the_present_day_can_be_emptied_and_goes_on() {
    let place = Place::new();
    let log = open(&place);
    keep(&log, 1, on(0), "a mistake");
    let salted = commit(&log, 2, on(1), b"under way");
    let day = Day::of(on(0));
    assert_eq!(erased(log.erase(Days::One(day), on(MINUTE))), [Erased { day, digests: false }]);
    assert_eq!(read(&log, 1, on(0)), Kept::Erased);
    keep(&log, 2, on(1), "under way");
    assert_eq!(read(&log, 2, on(1)), kept("under way"));
    assert_eq!(read(&log, 1, on(0)), Kept::Erased);
    assert!(log.salts().matches(&salted, &call_id(2), on(1), Side::Arguments, b"under way").unwrap());
}

#[test]
fn a_text_is_kept_for_its_time_and_no_more_than_a_day_longer() {
    let place = Place::new();
    let log = open(&place);
    for day in 0..4 {
        keep(&log, 1, on(day * DAYS + DAYS - 1), format!("day {day}"));
        keep(&log, 2, on(day * DAYS), "as well");
    }
    texts(&log).flush();
    // Two days after the end of the first, and not a second earlier.
    assert_eq!(erased(log.expire(on(3 * DAYS - 1))), []);
    let first = Erased { day: Day::of(on(0)), digests: true };
    assert_eq!(erased(log.expire(on(3 * DAYS))), [first]);
    assert_eq!(erased(log.expire(on(3 * DAYS))), [], "once");
    assert_eq!(read(&log, 1, on(DAYS - 1)), Kept::Erased);
    assert_eq!(read(&log, 1, on(2 * DAYS - 1)), kept("day 1"));
    // Digests of days without texts are nobody's business here.
    commit(&log, 7, Day::from_number(Day::of(on(0)).number() - 1).begin(), b"x");
    assert_eq!(erased(log.expire(on(3 * DAYS))), []);
    assert_eq!(erased(log.erase(Days::Before(Day::of(on(2 * DAYS))), on(9 * DAYS))).len(), 2);
    texts(&log).set(None).unwrap();
    assert_eq!(erased(log.expire(on(99 * DAYS))), [], "without a time nothing runs out");
    assert_eq!(read(&log, 1, on(4 * DAYS - 1)), kept("day 3"));
}

#[test]
fn an_erasure_that_was_cut_short_is_ended() {
    let place = Place::new();
    let log = open(&place);
    keep(&log, 1, on(0), "text");
    let salted = commit(&log, 1, on(0), b"text");
    drop(log);
    let digest_says = |log: &Log| log.salts().matches(&salted, &call_id(1), on(0), Side::Arguments, b"text").is_ok();
    // The key is gone, the texts are not yet.
    fs::remove_file(folder(&place, "2026-11-18").join("key")).unwrap();
    let log = open(&place);
    assert_eq!(read(&log, 1, on(0)), Kept::Absent, "without its key it is nothing");
    let salt = place.file("salt").join(Day::of(on(0)).number().to_string());
    let key = fs::read(&salt).unwrap();
    assert!(digest_says(&log));
    assert_eq!(erased(log.expire(on(9 * DAYS))).len(), 1);
    assert_eq!(names(folder(&place, "2026-11-18")), ["erased"]);
    assert!(!digest_says(&log));

    // The texts are gone, the salt is not: no need to wait until they would have been old.
    fs::write(&salt, key).unwrap();
    assert!(digest_says(&log));
    assert_eq!(erased(log.expire(on(0))), [], "not while the day lasts");
    assert_eq!(erased(log.expire(on(DAYS))), [Erased { day: Day::of(on(0)), digests: true }]);
    assert!(!digest_says(&log));

    // The salt is gone, the texts are not; and of their key there are zeros.
    for n in [5, 6] {
        keep(&log, n, on(5 * DAYS), "text");
        commit(&log, n, on(5 * DAYS), b"text");
        texts(&log).flush();
    }
    log.salts().forget(on(5 * DAYS)).unwrap();
    fs::write(folder(&place, "2026-11-23").join("key"), [0; 4]).unwrap();
    assert_eq!(read(&log, 5, on(5 * DAYS)), Kept::Absent, "and not damaged");
    assert_eq!(erased(log.expire(on(9 * DAYS))).len(), 1);
    assert_eq!(read(&log, 5, on(5 * DAYS)), Kept::Erased);
    assert_eq!(erased(log.expire(on(9 * DAYS))), []);
}

#[test]
fn a_day_that_cannot_be_erased_hides_none_that_was() {
    let place = Place::new();
    let log = open(&place);
    for day in 0..3 {
        keep(&log, 1, on(day * DAYS), "text");
    }
    texts(&log).flush();
    let key = folder(&place, "2026-11-19").join("key");
    fs::remove_file(&key).unwrap();
    fs::create_dir(&key).unwrap();

    let Erasure { days, fault } = log.expire(on(9 * DAYS));

    let of = |day| Erased { day: Day::of(on(day * DAYS)), digests: true };
    assert_eq!(days, [of(0), of(2)]);
    assert!(fault.unwrap().to_string().starts_with("2026-11-19: "));
    fs::remove_dir(&key).unwrap();
    assert_eq!(erased(log.expire(on(9 * DAYS))), [of(1)], "it is tried again");
}

#[test]
fn a_mark_that_cannot_be_made_keeps_no_key_alive() {
    let place = Place::new();
    let log = open(&place);
    keep(&log, 1, on(0), "text");
    let salted = commit(&log, 1, on(0), b"text");
    texts(&log).flush();
    fs::create_dir(folder(&place, "2026-11-18").join("emptied")).unwrap();
    let day = Day::of(on(0));

    let Erasure { days, fault } = log.erase(Days::One(day), on(MINUTE));

    assert_eq!(days, [Erased { day, digests: false }]);
    assert!(fault.is_some(), "what could not be done is told");
    assert_eq!(names(folder(&place, "2026-11-18")), ["emptied"], "no key, no texts");
    assert!(log.salts().matches(&salted, &call_id(1), on(0), Side::Arguments, b"text").unwrap());
    // Of what there is nothing nothing is made.
    assert_eq!(erased(log.erase(Days::One(Day::of(on(7 * DAYS))), on(9 * DAYS))), []);
    assert!(!folder(&place, "2026-11-25").exists());
}

#[test]
fn a_disk_that_fails_makes_no_file_for_each_text() {
    let place = Place::new();
    let disk = Disk::default();
    let text = |n| Text { call: call_id(n), at: on(0), side: Side::Result, text: "text".into() };
    let begin = || {
        let texts = Texts::new(place.path(), &tenant(), sealer(), disk.clone());
        texts.set(Some(KEEPING)).unwrap();
        texts
    };
    let before = begin();
    before.keep(text(1));
    drop(before);
    disk.full.store(true, Ordering::SeqCst);
    let texts = begin();
    for n in 2..7 {
        texts.keep(text(n));
        texts.flush();
        texts.keep(Text { at: on(DAYS), ..text(n) });
        texts.flush();
    }
    assert_eq!(texts.stats(), TextStats { failed: 10, ..TextStats::default() });
    assert_eq!(names(folder(&place, "2026-11-18")), ["0000", "0001", "key"]);
    assert_eq!(names(folder(&place, "2026-11-19")), ["key.draft"]);
    disk.full.store(false, Ordering::SeqCst);
    texts.keep(text(7));
    let read = |n| texts.read(&call_id(n), on(0), Side::Result).unwrap();
    assert_eq!((read(1), read(2), read(7)), (kept("text"), Kept::Absent, kept("text")));
    assert_eq!(names(folder(&place, "2026-11-18")), ["0000", "0001", "key"], "the same file is begun again");
}

#[test]
fn what_the_disk_does_not_promise_is_counted_and_tried_again() {
    let place = Place::new();
    let disk = Disk::default();
    let texts = Texts::new(place.path(), &tenant(), sealer(), disk.clone());
    texts.set(Some(KEEPING)).unwrap();
    let text = |n| Text { call: call_id(n), at: on(0), side: Side::Result, text: "text".into() };
    texts.keep(text(1));
    texts.flush();
    disk.unsafe_now.store(true, Ordering::SeqCst);
    texts.keep(text(2));
    texts.flush();
    texts.flush();
    assert_eq!((texts.stats().kept, texts.stats().failed), (2, 1), "counted once");
    assert!(lock(&texts.shared.shelf).dirty());
    disk.unsafe_now.store(false, Ordering::SeqCst);
    texts.flush();
    assert!(!lock(&texts.shared.shelf).dirty());
    assert_eq!(texts.stats().failed, 1);
}

#[test]
fn two_days_in_turn_share_no_file_and_make_no_new_ones() {
    let place = Place::new();
    let log = open(&place);
    for n in 0..10 {
        keep(&log, n, on(DAYS - 1), "before midnight");
        keep(&log, n, on(DAYS), "after it");
        texts(&log).flush();
    }
    for day in ["2026-11-18", "2026-11-19"] {
        assert_eq!(names(folder(&place, day)), ["0000", "key"]);
    }
    // A third day takes the place of the one that was used longest ago.
    keep(&log, 20, on(2 * DAYS), "the day after");
    keep(&log, 21, on(DAYS - 1), "very late");
    for (n, at, text) in [
        (9, DAYS - 1, "before midnight"),
        (9, DAYS, "after it"),
        (20, 2 * DAYS, "the day after"),
        (21, DAYS - 1, "very late"),
    ] {
        assert_eq!(read(&log, n, on(at)), kept(text));
    }
    assert_eq!(texts(&log).stats(), TextStats { kept: 22, ..TextStats::default() });
}

#[test]
fn the_files_are_let_go_of_between_portions() {
    let place = Place::new();
    let texts = Texts::new(place.path(), &tenant(), sealer(), Disk::default());
    // Without the thread.
    texts.shared.on.store(true, Ordering::SeqCst);
    for n in 0..3 {
        texts.keep(Text { call: call_id(n), at: on(0), side: Side::Result, text: "x".repeat(700 << 10).into() });
    }
    assert_eq!(texts.shared.write_some(PORTION), 2, "a portion has so many bytes");
    for n in 0..PORTION as u64 {
        texts.keep(Text { call: call_id(n), at: on(0), side: Side::Arguments, text: "x".into() });
    }
    assert_eq!(texts.shared.write_some(10), 10, "and so many texts");
    texts.flush();
    assert_eq!(texts.stats(), TextStats { kept: 3 + PORTION as u64, ..TextStats::default() });
}
