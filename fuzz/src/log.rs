//! Promises of the log: no change of its bytes verifies as another log, and none brings the verifier down.

use audit::{Log, Options, Signer, SystemRecord, Tree, Which, prove, verify, verify_proof};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};
use vocab::{TenantId, Timestamp};

const RECORDS: u64 = 12;

/// A small log that was closed in order, all its files, and the proof of one record.
struct Sample {
    public: [u8; 32],
    files: Vec<(PathBuf, Vec<u8>)>,
    records: u64,
    proof: String,
}

/// The input says what to change: triples of file, place and byte. Or it is a proof itself.
pub fn log(input: &[u8]) {
    static SAMPLE: OnceLock<Sample> = OnceLock::new();
    let sample = SAMPLE.get_or_init(sample);
    if let Ok(text) = std::str::from_utf8(input) {
        let changed = text != sample.proof;
        let proven = verify_proof(text, None, &sample.public);
        assert!(changed || proven.is_ok(), "the proof does not hold unchanged");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let mut files = sample.files.clone();
    for change in input.chunks_exact(4).take(8) {
        let [file, high, low, byte] = *change else { continue };
        let index = usize::from(file) % files.len();
        let Some((_, bytes)) = files.get_mut(index) else { continue };
        let place = usize::from(u16::from_be_bytes([high, low])) % bytes.len().max(1);
        match bytes.get_mut(place) {
            Some(found) if byte != 0 => *found ^= byte,
            _ => bytes.truncate(place),
        }
    }
    for (path, bytes) in &files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap_or(folder.path())).expect("the folder is ours");
        fs::write(path, bytes).expect("the folder is ours");
    }
    if let Ok(verified) = verify(folder.path(), &sample.public, None, None) {
        assert_eq!(verified.records(), sample.records, "a changed log verifies, with other records");
    }
}

fn sample() -> Sample {
    let folder = tempfile::tempdir().expect("a folder");
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a key");
    let public: [u8; 32] = pair.public_key().as_ref().try_into().expect("32 bytes");
    let name = "example.com/fuzz".to_owned();
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
    Sample { public, files, records: verified.records(), proof }
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
