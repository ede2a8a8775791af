use super::*;
use crate::{
    fixture::{Place, at, call_id, closed, copy_dir, filled, intent, tenant},
    note::tests::signer,
    read::Reader,
    record::SystemRecord,
    verify::verify,
};
use std::{collections::HashSet, fs};

fn verified(place: &Place) -> crate::Verified {
    verify(place.path(), &signer(1).public, None, None).unwrap()
}

fn reader(place: &Place) -> Reader {
    Reader::open(place.path(), &Tree::Tenant(tenant())).unwrap()
}

/// The outcomes of all records of the tenant, by call; panics if a call was closed twice.
fn outcomes(place: &Place) -> Vec<(String, String)> {
    let reader = reader(place);
    let mut seen = HashSet::new();
    let mut outcomes = Vec::new();
    for index in 0..reader.size() {
        let entry = reader.get(index).unwrap().unwrap();
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let (kind, call) = (text(&entry.value["kind"]), text(&entry.value["record"]["call"]));
        assert!(seen.insert((kind.clone(), call.clone())), "{kind} {call} is there twice");
        outcomes.push((call, if kind == "intent" { kind } else { text(&entry.value["record"]["outcome"]["is"]) }));
    }
    outcomes
}

fn last_segment(place: &Place) -> PathBuf {
    crate::journal::segments(&place.file("journal")).unwrap().pop().unwrap()
}

#[tokio::test]
async fn durable_gives_the_index_and_close_signs_everything() {
    let place = Place::new();
    let log = place.open();
    for n in 0..5 {
        assert_eq!(log.append(closed(n)).unwrap().durable().await.unwrap(), n);
    }
    drop(log.append(closed(5)).unwrap());
    log.close().unwrap();
    assert_eq!(verified(&place).records(), 6);
    let log = place.open();
    assert_eq!((log.stats().size, log.stats().recovered), (6, 0));
    assert_eq!(log.append(closed(6)).unwrap().durable().await.unwrap(), 6);
}

#[tokio::test]
async fn many_appenders_share_commits_and_lose_nothing() {
    let place = Place::new();
    let log = Arc::new(place.open());
    let threads: Vec<_> = (0..4_u64)
        .map(|thread| {
            let log = Arc::clone(&log);
            std::thread::spawn(move || {
                for n in 0..1000 {
                    log.append_unwatched(closed(thread * 1000 + n)).unwrap();
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    log.flush().await.unwrap();
    assert_eq!(outcomes(&place).len(), 4000);
    assert!(log.stats().commits < 1000, "{:?}", log.stats());
    assert_eq!(log.stats().queued, 0);
}

#[test]
fn a_second_writer_is_refused() {
    let place = Place::new();
    let first = place.open();
    assert!(matches!(place.try_open(), Err(OpenFault::Locked { .. })));
    first.close().unwrap();
    place.open().close().unwrap();
}

#[tokio::test]
async fn a_tail_torn_at_any_byte_is_cut_off_and_nothing_else() {
    let place = filled(3).await;
    let before = fs::metadata(last_segment(&place)).unwrap().len();
    let log = place.open();
    log.append_unwatched(closed(3)).unwrap();
    log.flush().await.unwrap();
    // As after a crash: the checkpoint does not know of the record yet.
    let crashed = place.copy();
    drop(log);
    for file in ["tenant/default/checkpoint", "tenant/default/history"] {
        let old = filled(3).await;
        fs::copy(old.file(file), crashed.file(file)).unwrap();
    }
    let whole = fs::metadata(last_segment(&crashed)).unwrap().len();
    assert!(whole > before);
    for length in before..=whole {
        let torn = crashed.copy();
        File::options().write(true).open(last_segment(&torn)).unwrap().set_len(length).unwrap();
        let log = torn.open();
        let kept = if length == whole { 4 } else { 3 };
        assert_eq!(log.stats().size, kept, "cut to {length} of {before}..{whole}");
        assert_eq!(log.append(closed(9)).unwrap().durable().await.unwrap(), kept);
        log.close().unwrap();
        assert_eq!(verified(&torn).records(), kept + 1);
    }
}

#[tokio::test]
async fn a_loss_of_what_was_signed_does_not_open() {
    let place = filled(5).await;
    let segment = last_segment(&place);
    let length = fs::metadata(&segment).unwrap().len();
    File::options().write(true).open(&segment).unwrap().set_len(length - 1).unwrap();
    assert!(matches!(place.try_open(), Err(OpenFault::Damaged(_))));
    fs::remove_file(&segment).unwrap();
    assert!(matches!(place.try_open(), Err(OpenFault::Damaged(_))));
}

#[tokio::test]
async fn a_copy_that_was_taken_while_the_log_grows_starts_where_the_journal_was_copied_last() {
    let place = Place::new();
    let log = Arc::new(place.open());
    let stop = Arc::new(AtomicBool::new(false));
    let load = {
        let (log, stop) = (Arc::clone(&log), Arc::clone(&stop));
        std::thread::spawn(move || {
            for n in (0..).take_while(|_| !stop.load(Ordering::SeqCst)) {
                drop(log.append_unwatched(closed(n)));
                if n % 16 == 0 {
                    std::thread::park_timeout(Duration::from_millis(1));
                }
            }
        })
    };
    let grown = async || {
        let size = log.stats().size;
        while log.stats().size < size + 300 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        log.flush().await.unwrap();
        log.stats().size
    };
    grown().await;
    for _ in 0..3 {
        let copy = Place::new();
        let mut written = 0;
        for part in ["tenant", "system", "journal"] {
            copy_dir(&place.file(part), &copy.file(part));
            if part != "journal" {
                written = grown().await;
            }
        }
        let again = copy.open();
        assert!(again.stats().size >= written, "{} of {written}", again.stats().size);
        again.append(closed(1_000_000_000)).unwrap().durable().await.unwrap();
        again.close().unwrap();
        verified(&copy);

        // The other way round the trees know of records that the journal does not have.
        let copy = Place::new();
        for part in ["journal", "tenant", "system"] {
            copy_dir(&place.file(part), &copy.file(part));
            grown().await;
        }
        assert!(matches!(copy.try_open(), Err(OpenFault::Damaged(_))));
    }
    stop.store(true, Ordering::SeqCst);
    load.join().unwrap();
}

/// Every file and directory of a log, with what is in it.
fn contents(dir: &std::path::Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut contents = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        contents.push((path.clone(), if path.is_dir() { Vec::new() } else { fs::read(&path).unwrap() }));
        if path.is_dir() {
            contents.extend(self::contents(&path));
        }
    }
    contents.sort();
    contents
}

#[tokio::test]
async fn a_start_that_is_refused_changes_nothing() {
    type Damage = fn(&Place);
    let damages: [(&str, Damage); 4] = [
        ("no journal", |place| fs::remove_dir_all(place.file("journal")).unwrap()),
        ("torn", |place| {
            let segment = last_segment(place);
            let length = fs::metadata(&segment).unwrap().len();
            File::options().write(true).open(&segment).unwrap().set_len(length - 1).unwrap();
        }),
        // What is left says nothing of the tiles: they are not to be made to agree with it.
        ("another journal", |place| {
            let other = Place::new();
            let log = other.open();
            for n in 1000..1300 {
                log.append_unwatched(closed(n)).unwrap();
            }
            log.close().unwrap();
            fs::copy(last_segment(&other), last_segment(place)).unwrap();
        }),
        ("no header", |place| fs::write(last_segment(place), b"durward").unwrap()),
    ];
    for (damage, damaged) in damages {
        let place = filled(300).await;
        damaged(&place);
        let before = contents(place.path());
        let opened = place.try_open();
        assert!(matches!(opened, Err(OpenFault::Damaged(_))), "{damage}");
        assert!(contents(place.path()) == before, "{damage}");
    }
}

#[tokio::test]
async fn a_log_that_is_gone_is_not_begun_anew_where_something_knows_of_it() {
    let (mut place, beside) = (Place::new(), tempfile::tempdir().unwrap());
    place.anchor = Some(beside.path().join("log.newest"));
    let log = place.open();
    log.append(closed(0)).unwrap().durable().await.unwrap();
    log.close().unwrap();
    fs::remove_dir_all(place.path()).unwrap();
    assert!(matches!(place.try_open(), Err(OpenFault::SetBack { size: 0, signed: 1, .. })));
    assert!(!place.path().exists());
}

#[tokio::test]
async fn intents_that_a_crash_left_open_are_closed_as_unknown_once() {
    let place = Place::new();
    let log = place.open();
    for n in 1..=3 {
        log.append(intent(n)).unwrap().durable().await.unwrap();
    }
    log.append_unwatched(closed(2)).unwrap();
    log.flush().await.unwrap();
    let crashed = place.copy();
    drop(log);

    assert_eq!(crashed.open().stats().recovered, 2);
    let reopened = crashed.open();
    assert_eq!(reopened.stats().recovered, 0);
    reopened.close().unwrap();
    let outcomes = outcomes(&crashed);
    let unknown: Vec<_> = outcomes.iter().filter(|(_, is)| is == "unknown").map(|(call, _)| call.clone()).collect();
    assert_eq!(unknown, [call_id(1).to_string(), call_id(3).to_string()]);
    assert!(verified(&crashed).trees[0].open.is_empty());
}

#[tokio::test]
async fn a_copy_taken_while_the_log_is_open_recovers() {
    let mut place = Place::new();
    place.segment_bytes = 20_000;
    let log = place.open();
    for round in 0..12_u64 {
        let mut durable = 0;
        for n in 0..70 {
            let pending =
                log.append(if n % 7 == 0 { intent(round * 100 + n) } else { closed(round * 100 + n) }).unwrap();
            if n % 10 == 0 {
                durable = pending.durable().await.unwrap() + 1;
            }
        }
        // Files are copied one after the other, which no crash does: let the writer rest meanwhile.
        log.flush().await.unwrap();
        let copy = place.copy();
        let recovered = copy.open();
        assert!(recovered.stats().size >= durable);
        recovered.close().unwrap();
        assert!(verified(&copy).trees[0].open.is_empty());
        outcomes(&copy);
    }
    assert!(crate::journal::segments(&place.file("journal")).unwrap().len() == 1, "old segments are removed");
    assert_ne!(last_segment(&place).file_name().unwrap(), "00000000000000000000", "segments were begun");
    drop(log);
    verified(&place);
}

#[tokio::test]
async fn an_intent_older_than_the_journal_is_still_closed() {
    let mut place = Place::new();
    place.segment_bytes = 10_000;
    let log = place.open();
    log.append(intent(1_000_000)).unwrap().durable().await.unwrap();
    for n in 0..600 {
        log.append_unwatched(closed(n)).unwrap();
    }
    log.flush().await.unwrap();
    log.append(closed(601)).unwrap().durable().await.unwrap();
    log.close().unwrap();
    let log = place.open();
    assert_eq!(log.stats().recovered, 1);
    log.close().unwrap();
    assert_eq!(outcomes(&place).last().unwrap(), &(call_id(1_000_000).to_string(), "unknown".to_owned()));
    verified(&place);
}

#[tokio::test]
async fn damaged_tiles_are_made_again_from_the_journal() {
    let place = filled(300).await;
    for tile in ["tile/0/000", "tile/entries/000", "tile/0/001.p/44", "tile/entries/001.p/44"] {
        fs::write(place.file("tenant/default").join(tile), b"").unwrap();
    }
    place.open().close().unwrap();
    let log = place.open();
    log.append(closed(300)).unwrap().durable().await.unwrap();
    log.close().unwrap();
    assert_eq!(verified(&place).records(), 301);
}

#[tokio::test]
async fn a_full_disk_stops_calls_keeps_everything_and_heals() {
    let place = Place::new();
    let log = place.open();
    log.append(intent(1)).unwrap().durable().await.unwrap();

    place.disk.full.store(true, Ordering::SeqCst);
    // Those who find out are told, whatever they wait for, and so is whoever comes later with what has happened already.
    let waiting = [intent(2), closed(1), closed(4)].map(|leaf| log.append(leaf).unwrap().durable());
    let soon = async |waiting| tokio::time::timeout(Duration::from_secs(5), waiting).await.expect("told at once");
    for waiting in waiting {
        let fault = soon(waiting).await.unwrap_err();
        assert!(fault.to_string().contains("No space left on device"), "{fault}");
    }
    let fault = log.healthy().unwrap_err();
    assert_eq!(log.append(intent(5)).unwrap_err(), fault, "no call may begin");
    let late = log.append(closed(3)).expect("what has happened is still taken");
    assert_eq!(soon(late.durable()).await, Err(fault));
    // The call that was stopped is closed like any other.
    log.append_unwatched(closed(2)).unwrap();

    place.disk.full.store(false, Ordering::SeqCst);
    log.flush().await.unwrap();
    log.healthy().unwrap();
    assert_eq!(log.stats().size, 6, "nothing is lost, and nothing is there twice");
    assert_eq!(outcomes(&place).len(), 6);
    log.close().unwrap();
    verified(&place);
}

/// Waits until the log says of itself that it cannot be written, though nobody writes. Gives what it says.
async fn noticed(log: &Log) -> String {
    let noticing = async {
        loop {
            match log.healthy() {
                Err(fault) => return fault.to_string(),
                Ok(()) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(5), noticing).await.expect("noticed within a moment")
}

#[tokio::test]
async fn a_journal_that_is_removed_is_noticed_and_what_it_held_is_written_again() {
    let place = Place::new();
    let log = place.open();
    for n in 0..300 {
        log.append_unwatched(closed(n)).unwrap();
    }
    log.append(intent(300)).unwrap().durable().await.unwrap();
    fs::remove_dir_all(place.file("journal")).unwrap();
    // Told that it waits, or that it is on the disk: then it is.
    drop(log.append(closed(301)).unwrap().durable().await);
    log.append_unwatched(closed(302)).unwrap();
    log.flush().await.unwrap();
    log.healthy().unwrap();
    assert_eq!(log.append(closed(303)).unwrap().durable().await.unwrap(), 303);
    assert!(last_segment(&place).ends_with("00000000000000000001"), "a new segment");

    // Whatever the journal alone had is there after a crash: of the intent, too, that was open.
    let crashed = place.copy();
    let again = crashed.open();
    assert_eq!((again.stats().size, again.stats().recovered), (305, 1));
    again.close().unwrap();
    verified(&crashed);
    assert_eq!(outcomes(&crashed).len(), 305, "no record is missing, and none is there twice");
    log.close().unwrap();
    verified(&place);
}

#[tokio::test]
async fn a_log_that_is_moved_away_is_waited_for_and_nothing_is_made_in_its_place() {
    let beside = tempfile::tempdir().unwrap();
    let (place, away) = (Place::new(), beside.path().join("away"));
    let log = place.open();
    log.append(closed(0)).unwrap().durable().await.unwrap();
    log.flush().await.unwrap();
    fs::rename(place.path(), &away).unwrap();
    let said = noticed(&log).await;
    assert!(said.contains("was removed or moved away"), "{said}");
    assert!(log.append(intent(1)).is_err(), "no call may begin");
    log.append(closed(2)).unwrap().durable().await.unwrap_err();
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert!(!place.path().exists(), "a second log would hide the first");
    log.healthy().unwrap_err();

    fs::rename(&away, place.path()).unwrap();
    log.flush().await.unwrap();
    log.healthy().unwrap();
    log.close().unwrap();
    assert_eq!(verified(&place).records(), 2);
}

#[tokio::test]
async fn a_journal_is_not_made_again_beside_tiles_that_are_gone() {
    let place = Place::new();
    let log = place.open();
    for n in 0..300 {
        log.append_unwatched(closed(n)).unwrap();
    }
    log.flush().await.unwrap();
    fs::remove_dir_all(place.file("journal")).unwrap();
    fs::remove_dir_all(place.file("tenant/default/tile")).unwrap();
    noticed(&log).await;
    tokio::time::sleep(Duration::from_millis(1200)).await;
    log.healthy().unwrap_err();
    assert!(!place.file("journal").exists());
    assert!(matches!(log.close(), Err(LogFault::Disk(_))));
}

#[tokio::test]
async fn the_newest_tiles_are_missed_when_they_are_removed() {
    let place = Place::new();
    let log = place.open();
    for n in 0..300 {
        log.append_unwatched(closed(n)).unwrap();
    }
    log.flush().await.unwrap();
    // What is full is nowhere else any more: calls stop until it is put back.
    for tile in ["tile/entries/000", "tile/0/000"] {
        let (there, away) = (place.file("tenant/default").join(tile), place.file("away"));
        fs::rename(&there, &away).unwrap();
        let said = noticed(&log).await;
        assert!(said.contains(&format!("`{tile}` was removed or moved away")), "{said}");
        assert!(log.append(intent(300)).is_err(), "no call may begin");
        fs::rename(&away, &there).unwrap();
        log.flush().await.unwrap();
        log.healthy().unwrap();
    }
    // What is not full is in memory, and is written again.
    for tile in ["tile/entries/001.p", "tile/0/001.p", "tile/1/000.p"] {
        let there = place.file("tenant/default").join(tile);
        fs::remove_dir_all(&there).unwrap();
        let coming = async {
            while !there.exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), coming).await.expect("written again");
    }
    log.healthy().unwrap();
    log.close().unwrap();
    assert_eq!(verified(&place).records(), 300);
}

#[tokio::test]
async fn what_ends_while_a_tile_is_missing_is_there_at_the_next_start() {
    let place = Place::new();
    let log = place.open();
    for n in 0..300 {
        log.append_unwatched(closed(n)).unwrap();
    }
    log.flush().await.unwrap();
    let (there, away) = (place.file("tenant/default/tile/0/000"), place.file("away"));
    fs::rename(&there, &away).unwrap();
    noticed(&log).await;
    log.append_unwatched(closed(300)).unwrap();
    assert!(log.close().is_err(), "its checkpoint would stand on what is not there");
    fs::rename(&away, &there).unwrap();
    assert_eq!(place.open().stats().size, 301);
}

#[tokio::test]
async fn a_tree_that_is_removed_stops_calls() {
    let place = Place::new();
    let log = place.open();
    log.append(closed(0)).unwrap().durable().await.unwrap();
    log.flush().await.unwrap();
    fs::remove_dir_all(place.file("tenant")).unwrap();
    log.append_unwatched(closed(1)).unwrap();
    let said = noticed(&log).await;
    assert!(said.contains("`default` was removed or moved away"), "{said}");
    assert!(!place.file("tenant").exists());
}

#[tokio::test]
async fn a_log_that_cannot_be_written_at_the_end_says_so() {
    let place = Place::new();
    let log = place.open();
    log.append(closed(1)).unwrap().durable().await.unwrap();
    log.flush().await.unwrap();
    place.disk.full.store(true, Ordering::SeqCst);
    log.append_unwatched(closed(2)).unwrap();
    assert!(matches!(log.close(), Err(LogFault::Disk(_))));
    place.disk.full.store(false, Ordering::SeqCst);
    assert_eq!(place.open().stats().size, 1);
}

#[tokio::test]
async fn whoever_waits_for_the_end_of_a_log_that_cannot_be_written_is_told() {
    let place = Place::new();
    let log = place.open();
    log.append(closed(1)).unwrap().durable().await.unwrap();
    place.disk.full.store(true, Ordering::SeqCst);
    log.append_unwatched(closed(2)).unwrap();
    assert!(matches!(log.flush_at_last().await, Err(LogFault::Disk(_))));
    assert!(log.append_unwatched(closed(3)).is_err(), "it has ended");
    drop(log);
    place.disk.full.store(false, Ordering::SeqCst);
    let log = place.open();
    assert_eq!(log.stats().size, 1);
    log.append_unwatched(closed(2)).unwrap();
    log.flush_at_last().await.unwrap();
    assert_eq!(log.stats().size, 2);
}

#[tokio::test]
async fn the_queue_is_bounded_and_keeps_room_for_what_has_happened() {
    let mut place = Place::new();
    place.queue = 4;
    let log = place.open();
    place.disk.full.store(true, Ordering::SeqCst);
    log.append_unwatched(closed(0)).unwrap();
    while log.healthy().is_ok() {
        tokio::task::yield_now().await;
    }
    let taken = (1..20).take_while(|n| log.append_unwatched(closed(*n)).is_ok()).count();
    assert_eq!(taken, 7, "twice the bound, with the one that waits already");
    assert_eq!(log.append_unwatched(closed(99)), Err(LogFault::Full(8)));
    place.disk.full.store(false, Ordering::SeqCst);
    log.flush().await.unwrap();
    assert_eq!(outcomes(&place).len(), 8);
}

#[tokio::test]
async fn a_flood_without_a_principal_becomes_one_counted_record() {
    let place = Place::new();
    let log = place.open();
    for n in 0..10_000 {
        log.append_system(SystemRecord::new("unauthenticated".into(), tenant(), at(n))).unwrap();
    }
    let surplus = log.stats().surplus;
    log.close().unwrap();
    let reader = Reader::open(place.path(), &Tree::System).unwrap();
    let mut counted = 0;
    for index in 0..reader.size() {
        counted += reader.get(index).unwrap().unwrap().value["record"]["count"].as_u64().unwrap_or(1);
    }
    assert_eq!(counted, 10_000, "the count of records equals the count of requests");
    assert!(surplus > 9_000 && reader.size() < 200, "{surplus} {}", reader.size());
    assert_eq!(verified(&place).trees[1].kinds[3], reader.size());
}

#[tokio::test]
async fn what_the_gateway_does_is_hidden_by_no_flood() {
    let place = Place::new();
    let log = open_flooded(&place);
    log.append_event(SystemRecord::new("erased".into(), tenant(), at(1))).unwrap();
    log.close().unwrap();
    let reader = Reader::open(place.path(), &Tree::System).unwrap();
    let erased = |index| reader.get(index).unwrap().unwrap().value["record"]["event"] == "erased";
    assert_eq!((0..reader.size()).filter(|index| erased(*index)).count(), 1);
}

fn open_flooded(place: &Place) -> Log {
    let log = place.open();
    for n in 0..10_000 {
        log.append_system(SystemRecord::new("unauthenticated".into(), tenant(), at(n))).unwrap();
    }
    assert!(log.stats().surplus > 0);
    log
}

#[test]
fn names_that_are_no_directory_are_refused() {
    let place = Place::new();
    for name in [".", ".."] {
        let options =
            Options::new(place.path().to_owned(), "example.com/default".into(), TenantId::new(name).unwrap(), at(0));
        assert!(matches!(Log::open(options, signer(1)), Err(OpenFault::Name(_))));
    }
    // An origin says whose tree it is: `verify` tells trees apart by it.
    for origin in ["", "a b/default", "example.com/other", "example.com/default/system"] {
        let options = Options::new(place.path().to_owned(), origin.into(), tenant(), at(0));
        assert!(matches!(Log::open(options, signer(1)), Err(OpenFault::Name(_))), "{origin}");
    }
}
