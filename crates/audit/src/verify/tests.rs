use super::*;
use crate::{
    fixture::{Place, at, call, closed, copy_dir, filled, intent, tenant},
    log::OpenFault,
    note::tests::signer,
    read::{ReadFault, Reader},
    record::{Leaf, SystemRecord},
    tile::{self, Kind},
};
use std::sync::atomic::Ordering;

const TREE: &str = "tenant/default";

fn check(place: &Place) -> Result<Verified, Broken> {
    verify(place.path(), &signer(1).public, None, None)
}

fn found(place: &Place) -> (u64, What) {
    let broken = check(place).unwrap_err();
    (broken.index, broken.what)
}

fn bundle(place: &Place, n: u64, size: u64) -> PathBuf {
    place.file(TREE).join(tile::path(Kind::Entries, n, (size - n * WIDTH).min(WIDTH)))
}

/// Changes the records of a bundle, as someone would who knows the format.
fn tamper(place: &Place, n: u64, size: u64, change: impl FnOnce(&mut Vec<Vec<u8>>)) {
    let path = bundle(place, n, size);
    let bytes = fs::read(&path).unwrap();
    let mut entries: Vec<Vec<u8>> = tile::entries_of(&bytes).map(|entry| entry.unwrap().to_vec()).collect();
    change(&mut entries);
    let bytes: Vec<u8> = entries
        .iter()
        .flat_map(|entry| [&u16::try_from(entry.len()).unwrap().to_be_bytes()[..], entry].concat())
        .collect();
    fs::write(path, bytes).unwrap();
}

/// Makes the hash tiles of level 0 and 1 anew from the records, as someone would who has read the specification.
fn retile(place: &Place, size: u64) {
    let mut edge = Edge::default();
    let root = place.file(TREE);
    let write = |level, n, hashes: &[Hash]| {
        fs::write(root.join(tile::path(Kind::Hashes(level), n, hashes.len() as u64)), hashes.as_flattened()).unwrap();
    };
    for n in 0..size.div_ceil(WIDTH) {
        let bytes = fs::read(bundle(place, n, size)).unwrap();
        for entry in tile::entries_of(&bytes) {
            edge.push(tree::leaf_hash(entry.unwrap()), write);
        }
    }
    for (level, hashes) in edge.levels().filter(|(_, hashes)| !hashes.is_empty()) {
        write(level, size >> (8 * (level + 1)), hashes);
    }
}

fn edit(entry: &mut [u8]) {
    let place = entry.windows(4).position(|part| part == b"read").unwrap();
    entry[place..place + 4].copy_from_slice(b"kill");
}

#[tokio::test]
async fn an_untouched_log_holds() {
    let place = filled(600).await;
    let verified = check(&place).unwrap();
    assert_eq!(verified.records(), 600);
    let tenant = &verified.trees[0];
    assert_eq!((tenant.size, tenant.unsigned, tenant.kinds), (600, 0, [0, 600, 0, 0]));
    assert_eq!(verify(place.path(), &signer(2).public, None, None).unwrap_err().what, What::BadSignature);
}

#[tokio::test]
async fn an_edit_is_named() {
    for (n, at) in [(0, 0), (0, 255), (1, 3), (2, 87)] {
        let place = filled(600).await;
        tamper(&place, n, 600, |entries| edit(&mut entries[at]));
        assert_eq!(found(&place), (n * WIDTH + at as u64, What::Edited));
    }
}

#[tokio::test]
async fn any_flipped_bit_of_any_file_is_found() {
    let place = filled(20).await;
    let mut files = Vec::new();
    let mut dirs = vec![place.path().to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { dirs.push(path) } else { files.push(path) }
        }
    }
    files.retain(|path| fs::metadata(path).unwrap().len() > 0);
    assert!(files.len() >= 5, "checkpoint, history, entries, hashes, journal: {files:?}");
    for path in files {
        let good = fs::read(&path).unwrap();
        for at in (0..good.len()).step_by(7) {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            fs::write(&path, &bad).unwrap();
            assert!(check(&place).is_err(), "byte {at} of {}", path.display());
        }
        fs::write(&path, good).unwrap();
    }
    check(&place).unwrap();
}

#[tokio::test]
async fn a_deletion_is_named() {
    let place = filled(600).await;
    tamper(&place, 1, 600, |entries| drop(entries.remove(44)));
    assert_eq!(found(&place), (300, What::Deleted));

    let place = filled(600).await;
    tamper(&place, 0, 600, |entries| drop(entries.pop()));
    assert_eq!(found(&place), (255, What::Deleted));

    let place = filled(600).await;
    fs::remove_file(bundle(&place, 1, 600)).unwrap();
    assert_eq!(found(&place), (256, What::Deleted));
}

#[tokio::test]
async fn an_insertion_is_named() {
    let place = filled(600).await;
    tamper(&place, 0, 600, |entries| {
        let mut forged = entries[10].clone();
        edit(&mut forged);
        entries.insert(10, forged);
    });
    assert_eq!(found(&place), (10, What::Inserted));

    let place = filled(600).await;
    tamper(&place, 0, 600, |entries| entries.insert(10, entries[3].clone()));
    assert_eq!(found(&place), (10, What::Inserted));

    let place = filled(600).await;
    tamper(&place, 2, 600, |entries| entries.push(entries[0].clone()));
    assert_eq!(found(&place), (600, What::Inserted));
}

#[tokio::test]
async fn a_reordering_is_named() {
    let place = filled(600).await;
    tamper(&place, 1, 600, |entries| entries.swap(7, 8));
    assert_eq!(found(&place), (263, What::Reordered));
}

#[tokio::test]
async fn a_truncation_is_named() {
    let place = filled(600).await;
    tamper(&place, 2, 600, |entries| entries.truncate(5));
    assert_eq!(found(&place), (517, What::Truncated));

    let place = filled(600).await;
    fs::remove_file(bundle(&place, 2, 600)).unwrap();
    assert_eq!(found(&place), (512, What::Truncated));

    let place = filled(600).await;
    fs::remove_file(place.file(TREE).join("checkpoint")).unwrap();
    assert_eq!(found(&place).1, What::BadSignature);

    // Nothing is left of the tree but the journal's copies. Their times say that they were signed.
    let tree_gone = |place: Place| {
        fs::remove_dir_all(place.file("tenant/default")).unwrap();
        place
    };
    let broken = check(&tree_gone(apart(11_000_000).await)).unwrap_err();
    assert_eq!((broken.tree.as_str(), broken.what), (TREE, What::BadSignature), "{broken}");
    assert!(broken.explanation.contains("its checkpoint is missing"), "{broken}");
    // What a crash left in its first seconds looks the same, and is none of that.
    assert_eq!(check(&tree_gone(apart(5_000_000).await)).unwrap().trees[0].unsigned, 2);
}

/// A closed log of two calls, so many microseconds apart.
async fn apart(micros: u64) -> Place {
    let place = Place::new();
    let log = place.open();
    for n in [0, micros] {
        log.append_unwatched(closed(n)).unwrap();
    }
    log.flush().await.unwrap();
    log.close().unwrap();
    place
}

#[tokio::test]
async fn a_tree_in_the_place_of_another_is_named() {
    let place = Place::new();
    let log = place.open();
    log.append_unwatched(closed(0)).unwrap();
    log.append_event(SystemRecord::new("started".into(), tenant(), at(0))).unwrap();
    log.close().unwrap();
    let named = |change: fn(&Place), tree: &str, said: [&str; 2]| {
        let other = place.copy();
        change(&other);
        let broken = check(&other).unwrap_err();
        assert_eq!((broken.tree.as_str(), broken.index, broken.what), (tree, 0, What::BadSignature), "{broken}");
        assert!(said.iter().all(|origin| broken.explanation.contains(&format!("`{origin}`"))), "{broken}");
        other
    };
    named(
        |place| copy_dir(&place.file(TREE), &place.file("tenant/other")),
        "tenant/other",
        ["example.com/default", "example.com/other"],
    );
    let moved = named(
        |place| fs::rename(place.file(TREE), place.file("tenant/other")).unwrap(),
        "tenant/other",
        ["example.com/default", "example.com/other"],
    );
    named(
        |place| copy_dir(&place.file("system"), &place.file("tenant/system")),
        "tenant/system",
        ["example.com/default/system", "example.com/default/system"],
    );
    let swapped = named(
        |place| {
            fs::remove_dir_all(place.file(TREE)).unwrap();
            copy_dir(&place.file("system"), &place.file(TREE));
        },
        TREE,
        ["example.com/default/system", "example.com/default"],
    );
    // Nor is it read as what it is not, or written on.
    let read = |place: &Place, tree| Reader::open(place.path(), &tree).map(|reader| reader.size());
    let (other, own) = (Tree::Tenant(TenantId::new("other").unwrap()), Tree::Tenant(tenant()));
    assert!(matches!(read(&moved, other), Err(ReadFault::Other { .. })));
    assert!(matches!(read(&swapped, own.clone()), Err(ReadFault::Other { .. })));
    assert!(matches!(swapped.try_open(), Err(OpenFault::Damaged(_))));
    assert_eq!(read(&place, own).unwrap(), 1);
}

#[tokio::test]
async fn tiles_made_anew_do_not_hide_an_edit() {
    // The log is closed after 300 records and again after 600: the history says between which two checkpoints.
    let place = filled(300).await;
    let log = place.open();
    for n in 300..600 {
        log.append_unwatched(closed(n)).unwrap();
    }
    log.close().unwrap();
    tamper(&place, 1, 600, |entries| edit(&mut entries[144]));
    retile(&place, 600);
    let broken = check(&place).unwrap_err();
    // The writer may have signed in between as well, which only narrows it down.
    assert!(broken.what == What::Edited && (300..=400).contains(&broken.index), "{broken}");
    assert!(broken.explanation.contains("a record from here to"), "{broken}");
}

#[tokio::test]
async fn an_edited_tile_is_told_from_an_edited_record() {
    let place = filled(600).await;
    let path = place.file(TREE).join(tile::path(Kind::Hashes(0), 1, WIDTH));
    let mut bytes = fs::read(&path).unwrap();
    bytes[32 * 9] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert_eq!(found(&place), (265, What::Copy));

    let place = filled(600).await;
    let path = place.file(TREE).join(tile::path(Kind::Hashes(1), 0, 2));
    let mut bytes = fs::read(&path).unwrap();
    bytes[32] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert_eq!(found(&place), (256, What::Copy));
}

#[tokio::test]
async fn a_rollback_shows_against_a_checkpoint_kept_elsewhere() {
    let place = filled(10).await;
    let old = place.copy();
    let log = place.open();
    log.append_unwatched(closed(10)).unwrap();
    log.flush().await.unwrap();
    let kept = log.checkpoint().unwrap();
    log.close().unwrap();

    check(&old).unwrap();
    let broken = verify(old.path(), &signer(1).public, Some(&kept), None).unwrap_err();
    assert_eq!((broken.index, broken.what), (10, What::Truncated));
    assert!(verify(place.path(), &signer(1).public, Some(&kept), None).is_ok());
    let empty = Place::new();
    drop(empty.open());
    assert_eq!(verify(empty.path(), &signer(1).public, Some(&kept), None).unwrap_err().what, What::Truncated);

    // A log that went another way from the same beginning.
    let log = old.open();
    for n in 50..55 {
        log.append_unwatched(closed(n)).unwrap();
    }
    log.close().unwrap();
    let broken = verify(old.path(), &signer(1).public, Some(&kept), None).unwrap_err();
    assert_eq!((broken.index, broken.what), (10, What::Edited));
}

#[tokio::test]
async fn calls_and_intents_must_match() {
    let cites = |n, cited| {
        let mut record = call(n);
        record.intent = Some(cited);
        Leaf::Call(record)
    };
    for (leaves, wanted) in [
        (vec![intent(1), cites(1, 0)], Ok(0)),
        (vec![intent(1), intent(2), cites(2, 1)], Ok(1)),
        (vec![intent(1), closed(1), cites(1, 0)], Err((2, What::CitedTwice))),
        (vec![intent(1), cites(2, 0)], Err((1, What::MissingIntent))),
        (vec![closed(5), cites(1, 0)], Err((1, What::MissingIntent))),
        (vec![cites(1, 9)], Err((0, What::MissingIntent))),
        (vec![intent(1), intent(2), cites(2, 0)], Err((2, What::MissingIntent))),
    ] {
        let place = Place::new();
        let log = place.open();
        let printed = format!("{leaves:?}");
        for leaf in leaves {
            log.append_unwatched(leaf).unwrap();
        }
        log.close().unwrap();
        let got = check(&place).map(|v| v.trees[0].open.len()).map_err(|broken| (broken.index, broken.what));
        assert_eq!(got, wanted, "{printed}");
    }
}

#[tokio::test]
async fn records_that_are_not_signed_yet_are_read_from_the_journal() {
    let place = filled(300).await;
    let before = place.copy();
    let log = place.open();
    for n in 300..310 {
        log.append_unwatched(closed(n)).unwrap();
    }
    log.flush().await.unwrap();
    // As after a crash: the checkpoint does not know of the records yet.
    let crashed = place.copy();
    for file in ["checkpoint", "history"] {
        fs::copy(before.file(TREE).join(file), crashed.file(TREE).join(file)).unwrap();
    }
    let tenant = &check(&crashed).unwrap().trees[0];
    assert_eq!((tenant.size, tenant.unsigned), (300, 10));
}

/// A closed log of so many calls, with its newest checkpoints beside it.
async fn anchored(n: u64, beside: &Path) -> Place {
    let place = Place { anchor: Some(beside.join("newest")), ..Place::new() };
    grown(&place, 0..n).await;
    place
}

async fn grown(place: &Place, calls: std::ops::Range<u64>) {
    let log = place.open();
    for n in calls {
        log.append_unwatched(closed(n)).unwrap();
    }
    log.flush().await.unwrap();
    log.close().unwrap();
}

fn beside(place: &Place) -> Result<Verified, Broken> {
    verify(place.path(), &signer(1).public, None, place.anchor.as_deref())
}

#[tokio::test]
async fn a_log_that_was_set_back_is_named_by_what_is_kept_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let place = anchored(300, folder.path()).await;
    // Whoever sets it back may have all that the log itself ever was, signatures included.
    let before = Place { anchor: place.anchor.clone(), ..place.copy() };
    grown(&place, 300..600).await;
    assert!(beside(&place).unwrap().anchored);
    check(&before).unwrap();
    let broken = beside(&before).unwrap_err();
    assert_eq!((broken.index, broken.what), (300, What::Truncated));
    assert!(broken.explanation.contains("beside the log"), "{broken}");
    // Nor does a gateway go on from there.
    let refused = before.try_open().unwrap_err();
    assert!(matches!(refused, OpenFault::SetBack { size: 300, signed: 600, .. }), "{refused}");
    assert!(refused.to_string().contains("restored from a backup"), "{refused}");

    // With nothing left, and with another log in its place, it is named as well.
    let empty = Place { anchor: place.anchor.clone(), ..Place::new() };
    beside(&empty).unwrap_err();
    assert!(matches!(empty.try_open(), Err(OpenFault::SetBack { size: 0, signed: 600, .. })));
    let other = Place { anchor: None, ..before.copy() };
    grown(&other, 700..1100).await;
    let other = Place { anchor: place.anchor.clone(), ..other };
    assert_eq!(beside(&other).unwrap_err().what, What::Edited);
    assert!(matches!(other.try_open(), Err(OpenFault::Damaged(_))));
    let unread = Place { anchor: Some(folder.path().join("torn")), ..place.copy() };
    fs::write(folder.path().join("torn"), "durward").unwrap();
    assert_eq!(beside(&unread).unwrap_err().what, What::BadSignature);
    assert!(matches!(unread.try_open(), Err(OpenFault::Anchor { .. })));
}

#[tokio::test]
async fn a_log_that_was_restored_goes_on_and_records_that_nothing_vouched_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let place = anchored(300, folder.path()).await;
    assert_eq!(beside(&place).unwrap().trees[1].size, 0, "a new log has nothing to vouch for");
    let restored = Place { anchor: place.anchor.clone(), ..place.copy() };
    grown(&place, 300..310).await;
    assert!(restored.try_open().is_err());
    fs::remove_file(folder.path().join("newest")).unwrap();
    assert!(!beside(&restored).unwrap().anchored);
    grown(&restored, 400..401).await;
    let verified = beside(&restored).unwrap();
    assert!(verified.anchored);
    assert_eq!((verified.trees[0].size, verified.trees[1].size), (301, 1));
    let system = restored.file("system").join(tile::path(Kind::Entries, 0, 1));
    let said = String::from_utf8_lossy(&fs::read(system).unwrap()).into_owned();
    assert!(said.contains("unanchored") && said.contains("300 records"), "{said}");
    // Once is enough.
    grown(&restored, 401..402).await;
    assert_eq!(beside(&restored).unwrap().trees[1].size, 1);
}

#[tokio::test]
async fn that_nothing_vouched_for_a_log_is_on_disk_before_anything_does_again() {
    let folder = tempfile::tempdir().unwrap();
    let place = anchored(10, folder.path()).await;
    let newest = folder.path().join("newest");
    fs::remove_file(&newest).unwrap();
    let noted = || {
        let segments = crate::journal::segments(&place.file("journal")).unwrap();
        segments.iter().filter(|path| String::from_utf8_lossy(&fs::read(path).unwrap()).contains("unanchored")).count()
    };
    // As if the process ended right there: the record is no matter of who comes first.
    place.disk.full.store(true, Ordering::SeqCst);
    assert!(matches!(place.try_open(), Err(OpenFault::Disk { .. })));
    assert!(!newest.exists(), "the next start finds it missing, too");
    place.disk.full.store(false, Ordering::SeqCst);
    let log = place.open();
    assert_eq!(noted(), 1, "before anybody waits for it");
    log.close().unwrap();
    assert_eq!(beside(&place).unwrap().trees[1].size, 1);
}

#[tokio::test]
async fn what_is_kept_beside_a_log_may_lag_behind_it_and_catches_up() {
    let folder = tempfile::tempdir().unwrap();
    let place = anchored(10, folder.path()).await;
    let newest = folder.path().join("newest");
    let old = fs::read(&newest).unwrap();
    grown(&place, 10..20).await;
    let signed = fs::read(&newest).unwrap();
    // As after a crash between the two.
    fs::write(&newest, &old).unwrap();
    beside(&place).unwrap();
    place.open().close().unwrap();
    assert_eq!(fs::read(&newest).unwrap(), signed);
    // While it cannot be kept, the log cannot be written.
    fs::remove_file(&newest).unwrap();
    fs::create_dir(&newest).unwrap();
    assert!(place.try_open().is_err());
    fs::remove_dir(&newest).unwrap();
    fs::write(&newest, &signed).unwrap();
    let log = place.open();
    fs::remove_file(&newest).unwrap();
    fs::create_dir(&newest).unwrap();
    log.append_unwatched(closed(20)).unwrap();
    while log.healthy().is_ok() {
        tokio::task::yield_now().await;
    }
    fs::remove_dir(&newest).unwrap();
    log.flush().await.unwrap();
    log.healthy().unwrap();
    log.close().unwrap();
    assert_eq!(beside(&place).unwrap().trees[0].size, 21);
}
