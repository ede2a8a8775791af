//! What the tests of this crate share: a log in a temporary directory, and records to put into it.

use crate::{
    disk::Disk,
    log::{Log, OpenFault, Options},
    note::tests::signer,
    record::{CallRecord, Intent, Leaf, Outcome},
};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};
use vocab::{AgentId, CallId, ServerName, TenantId, Timestamp};

/// A directory for a log, and the disk it is written on.
pub(crate) struct Place {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) disk: Disk,
    pub(crate) segment_bytes: u64,
    pub(crate) queue: usize,
    /// A file beside the log, where there is one.
    pub(crate) anchor: Option<PathBuf>,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            disk: Disk::default(),
            segment_bytes: 64 << 20,
            queue: 16_384,
            anchor: None,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn open(&self) -> Log {
        self.try_open().unwrap()
    }

    pub(crate) fn try_open(&self) -> Result<Log, OpenFault> {
        let options = Options {
            segment_bytes: self.segment_bytes,
            queue: self.queue,
            anchor: self.anchor.clone(),
            reads_within: Duration::from_millis(5),
            ..Options::new(self.path().to_owned(), "example.com/default".into(), tenant(), at(1_000_000))
        };
        Log::open_on(options, signer(1), self.disk.clone())
    }

    /// The same directory somewhere else, as a crash or a thief would have it.
    pub(crate) fn copy(&self) -> Self {
        let copy = Self::new();
        copy_dir(self.path(), copy.path());
        Self { segment_bytes: self.segment_bytes, ..copy }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }
}

/// Copies what there is. What goes while it is copied is left out.
pub(crate) fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    let Ok(entries) = fs::read_dir(from) else { return };
    for entry in entries {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => copy_dir(&entry.path(), &target),
            Ok(_) => match fs::copy(entry.path(), target) {
                Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {}
                copied => drop(copied.unwrap()),
            },
            Err(_) => {}
        }
    }
}

pub(crate) fn tenant() -> TenantId {
    TenantId::default_tenant()
}

pub(crate) const fn at(n: i64) -> Timestamp {
    Timestamp::from_micros(1_795_000_000_000_000 + n)
}

pub(crate) fn call_id(n: u64) -> CallId {
    let mut bytes = [0xab; 16];
    bytes[8..].copy_from_slice(&n.to_be_bytes());
    CallId::from_bytes(bytes)
}

/// A call by `ci` to `files/read` that was answered.
pub(crate) fn call(n: u64) -> CallRecord {
    CallRecord {
        agent: Some(AgentId::new("ci").unwrap()),
        server: Some(ServerName::new("files").unwrap()),
        target: Some("read".into()),
        ..CallRecord::new(call_id(n), tenant(), at(i64::try_from(n).unwrap()), Outcome::Answered)
    }
}

pub(crate) fn closed(n: u64) -> Leaf {
    Leaf::Call(call(n))
}

pub(crate) fn intent(n: u64) -> Leaf {
    let call = call(n);
    Leaf::Intent(Intent {
        action: None,
        agent: call.agent,
        arguments: None,
        at: call.at,
        call: call.call,
        class: None,
        issuer: None,
        method: None,
        parent: None,
        policy: None,
        rules: [].into(),
        server: call.server,
        target: call.target,
        tenant: call.tenant,
        trace: None,
        user: None,
    })
}

/// A closed log of `n` calls.
pub(crate) async fn filled(n: u64) -> Place {
    let place = Place::new();
    let log = place.open();
    for n in 0..n {
        log.append_unwatched(closed(n)).unwrap();
    }
    log.flush().await.unwrap();
    log.close().unwrap();
    place
}
