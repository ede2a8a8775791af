//! Promises of the log: no change of its bytes verifies as another log, no proof holds for what was not logged, and nothing
//! brings the verifier down.

use audit::{Hash, Log, Options, Reader, Signer, SystemRecord, Tree, Verified, Which, prove, verify, verify_proof};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};
use vocab::{TenantId, Timestamp};

const RECORDS: u64 = 12;

/// A small log that was closed in order, all its files, what they say, and the proof of one record.
struct Sample {
    public: [u8; 32],
    files: Vec<(PathBuf, Vec<u8>)>,
    said: Said,
    proof: String,
}

/// What a log that verifies says: its signed trees, and the records of the system's.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    trees: Vec<(Tree, String, u64, Hash)>,
    records: Vec<Vec<u8>>,
}

/// The input says what to change, in the files and in the proof: a file, a place (two bytes), and what is turned over. Or it
/// is a proof itself.
pub fn log(input: &[u8]) {
    static SAMPLE: OnceLock<Sample> = OnceLock::new();
    let sample = SAMPLE.get_or_init(sample);
    if let Ok(text) = std::str::from_utf8(input) {
        sample.judge(text);
    }
    let mut proof = sample.proof.clone().into_bytes();
    for change in changes(input) {
        turn(&mut proof, change);
        // Each on its way: most of what has two faults is refused for the first.
        let text = String::from_utf8_lossy(&proof);
        sample.judge(&text);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let mut files = sample.files.clone();
    for change in changes(input) {
        let index = usize::from(change[0]) % files.len();
        if let Some((_, bytes)) = files.get_mut(index) {
            turn(bytes, change);
        }
    }
    for (path, bytes) in &files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap_or(folder.path())).expect("the folder is ours");
        fs::write(path, bytes).expect("the folder is ours");
    }
    if let Ok(verified) = verify(folder.path(), &sample.public, None, None) {
        assert_eq!(said(folder.path(), verified), sample.said, "a changed log verifies as another one");
    }
}

impl Sample {
    /// A proof holds for what was logged and for nothing else.
    fn judge(&self, text: &str) {
        let proven = verify_proof(text, None, &self.public);
        assert!(text != self.proof || proven.is_ok(), "the proof does not hold unchanged");
        let Ok(proven) = proven else { return };
        let logged = usize::try_from(proven.index).ok().and_then(|index| self.said.records.get(index));
        assert_eq!(logged, Some(&proven.leaf), "something else is proven at {}", proven.index);
        let checkpoint = proven.checkpoint;
        let signed = |tree: &(Tree, String, u64, Hash)| {
            (&*tree.1, tree.2, &tree.3) == (checkpoint.origin(), checkpoint.size(), checkpoint.root())
        };
        assert!(self.said.trees.iter().any(signed), "it is proven to be in another tree");
    }
}

fn changes(input: &[u8]) -> impl Iterator<Item = [u8; 4]> {
    input.chunks_exact(4).take(8).filter_map(|change| change.try_into().ok())
}

/// Turns bits of a byte over, or cuts off what is there and after it.
fn turn(bytes: &mut Vec<u8>, [_, high, low, byte]: [u8; 4]) {
    let place = usize::from(u16::from_be_bytes([high, low])) % bytes.len().max(1);
    match bytes.get_mut(place) {
        Some(found) if byte != 0 => *found ^= byte,
        _ => bytes.truncate(place),
    }
}

/// What a log says to whoever reads it.
fn said(folder: &Path, verified: Verified) -> Said {
    let reader = Reader::open(folder, &Tree::System).expect("what verifies can be read");
    let record = |index| reader.get(index).expect("what verifies can be read").expect("it is as long as it says").leaf;
    let trees: Vec<_> = verified.trees.into_iter().map(|tree| (tree.tree, tree.origin, tree.size, tree.root)).collect();
    let size = trees.iter().find(|tree| tree.0 == Tree::System).map_or(0, |tree| tree.2);
    Said { records: (0..size).map(record).collect(), trees }
}

fn sample() -> Sample {
    let folder = tempfile::tempdir().expect("a folder");
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a key");
    let public: [u8; 32] = pair.public_key().as_ref().try_into().expect("32 bytes");
    let name = "example.com/default".to_owned();
    let sign = Box::new(move |text: &[u8]| pair.sign(text).as_ref().try_into().expect("64 bytes"));
    let signer = Signer { name: name.clone(), public, sign };
    let opened = Timestamp::from_seconds(1_795_000_000);
    let options = Options::new(folder.path().to_owned(), name, TenantId::default_tenant(), opened);
    let log = Log::open(options, signer).expect("an empty folder becomes a log");
    for index in 0..RECORDS {
        let record = SystemRecord::new("surplus".into(), TenantId::default_tenant(), opened);
        log.append_system(SystemRecord { count: Some(index + 2), ..record }).expect("the log takes records");
    }
    log.close().expect("the log closes");
    let verified = verify(folder.path(), &public, None, None).expect("an honest log verifies");
    let proof = prove(folder.path(), &Tree::System, Which::Index(3)).expect("a proof");
    let mut files = Vec::new();
    collect(folder.path(), folder.path(), &mut files);
    let said = said(folder.path(), verified);
    assert_eq!(said.records.len() as u64, RECORDS, "every record is there");
    Sample { public, files, said, proof }
}

fn collect(top: &Path, folder: &Path, files: &mut Vec<(PathBuf, Vec<u8>)>) {
    let mut inside: Vec<_> =
        fs::read_dir(folder).expect("the folder is ours").flatten().map(|entry| entry.path()).collect();
    inside.sort();
    for path in inside {
        if path.is_dir() {
            collect(top, &path, files);
        } else if let (Ok(name), Ok(bytes)) = (path.strip_prefix(top), fs::read(&path)) {
            files.push((name.to_owned(), bytes));
        }
    }
}
