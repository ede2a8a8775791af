//! Where the master key comes from. The only place of this crate that starts a process.

use crate::{
    KeyFault, MasterKey,
    document::FILE,
    file::{self, ReadFault},
    master::{self, Home, KeyBytes},
    signer::PUBLIC_FILE,
};
use std::{
    io::{self, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};
use vocab::Secret;
use zeroize::Zeroizing;

/// A key file or a command's answer is not longer.
const LONGEST: u64 = 4096;
/// The key file of a data directory unless another place is named.
const USUAL: &str = "master.key";
/// How long a key command may take: a person may have to touch a token.
const PATIENCE: Duration = Duration::from_mins(1);

/// Where the master key comes from, as the configuration says.
#[derive(Debug, Clone)]
pub enum KeySource {
    /// A file with mode 0600. The usual one, `master.key` in a data directory that was never used, is made; another
    /// that was named must be there.
    File(PathBuf),
    /// A value that the binary took from the environment.
    Value(Secret<String>),
    /// What this program prints. SECURITY: from the configuration only, never from a request.
    Command(Vec<String>),
}

impl KeySource {
    /// Gets the key for the data directory `data`.
    pub fn load(&self, data: &Path) -> Result<MasterKey, KeyFault> {
        match self {
            Self::File(path) => from_file(path, data),
            Self::Value(text) => elsewhere(text.expose().as_bytes()),
            Self::Command(words) => elsewhere(&answer_of(words)?),
        }
    }

    /// Whether a key file is fit to open the data directory `data` with. Makes none, and asks nobody else.
    pub fn check(&self, data: &Path) -> Result<(), KeyFault> {
        match self {
            Self::File(path) => there(path, data).map(drop),
            Self::Value(_) | Self::Command(_) => Ok(()),
        }
    }
}

fn elsewhere(text: &[u8]) -> Result<MasterKey, KeyFault> {
    Ok(MasterKey { bytes: master::parse(text)?, home: Home::Elsewhere, next: None })
}

/// Where a rotation keeps the new key until the secrets are under it.
pub(crate) fn next_file(path: &Path) -> PathBuf {
    path.with_added_extension("next")
}

fn from_file(path: &Path, data: &Path) -> Result<MasterKey, KeyFault> {
    let bytes = match there(path, data)? {
        Some(bytes) => bytes,
        None => create(path)?,
    };
    let next = read_key(&next_file(path))?;
    Ok(MasterKey { bytes, home: Home::File(path.to_owned()), next })
}

/// The key in a file; none where the usual file may be made.
fn there(path: &Path, data: &Path) -> Result<Option<KeyBytes>, KeyFault> {
    match read_key(path)? {
        Some(bytes) => Ok(Some(bytes)),
        // SECURITY: a new key in a directory in use would hide that the old one is lost.
        None if data.join(FILE).exists() || data.join(PUBLIC_FILE).exists() => {
            Err(KeyFault::Missing { path: path.to_owned() })
        }
        None if path == data.join(USUAL) => Ok(None),
        // SECURITY: a place that somebody chose may be one that is not mounted yet.
        None => Err(KeyFault::Absent { path: path.to_owned() }),
    }
}

fn read_key(path: &Path) -> Result<Option<KeyBytes>, KeyFault> {
    match file::read(path, LONGEST) {
        Ok(text) => master::parse(&text).map(Some),
        Err(ReadFault::Mode(mode)) => Err(KeyFault::Mode { path: path.to_owned(), mode }),
        Err(ReadFault::Io(cause)) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(ReadFault::Io(cause)) => Err(KeyFault::File { path: path.to_owned(), cause }),
    }
}

fn create(path: &Path) -> Result<KeyBytes, KeyFault> {
    let bytes = MasterKey::generate()?.bytes;
    file::create(path, MasterKey::encode(&bytes).as_bytes())
        .map_err(|cause| KeyFault::File { path: path.to_owned(), cause })?;
    Ok(bytes)
}

fn answer_of(words: &[String]) -> Result<Zeroizing<Vec<u8>>, KeyFault> {
    let (program, arguments) = words
        .split_first()
        .ok_or_else(|| KeyFault::CommandFailed { program: String::new(), why: "no program is named".to_owned() })?;
    let failed = |why: String| KeyFault::CommandFailed { program: program.clone(), why };
    let cause = |cause| KeyFault::Command { program: program.clone(), cause };
    #[expect(clippy::disallowed_methods, reason = "the one process this crate starts, named by the configuration")]
    let mut child =
        Command::new(program).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(cause)?;
    let answer = read_answer(&mut child);
    if answer.is_none() {
        // It hangs or it talks too much; either way it is not waited for.
        child.kill().map_err(cause)?;
    }
    let status = child.wait().map_err(cause)?;
    let answer = answer.ok_or_else(|| failed("it gave no answer of at most 4096 bytes within 60 s".to_owned()))?;
    if !status.success() {
        return Err(failed(status.to_string()));
    }
    Ok(answer)
}

/// What the child prints until it closes its output, unless that takes too long or is too much.
fn read_answer(child: &mut Child) -> Option<Zeroizing<Vec<u8>>> {
    let output = child.stdout.take()?;
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        let mut answer = Zeroizing::new(Vec::new());
        let read = output.take(LONGEST + 1).read_to_end(&mut answer);
        // Nobody listens any more if it took too long.
        let _ = send.send(read.ok().map(|_| answer));
    });
    let answer = receive.recv_timeout(PATIENCE).ok()??;
    (answer.len() as u64 <= LONGEST).then_some(answer)
}
