//! The open vault: read without a lock, written one change at a time.
//!
//! That no second process writes is the duty of who opened the directory. Writing blocks on the disk: keep it off
//! the call path.

use crate::{
    AuditSigner, KeySource, MasterKey, VaultFault,
    document::{self, Document, FILE, LARGEST},
    envelope::{Broken, Key},
    file::{self, ReadFault},
    master::{Home, KeyBytes},
    signer::PUBLIC_FILE,
    source::next_file,
};
use arc_swap::ArcSwap;
use std::{
    collections::BTreeSet,
    fmt, fs, io, mem,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};
use vocab::{Secret, SecretName, TenantId, Timestamp};

/// What is known of a secret without opening it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretInfo {
    /// Its name.
    pub name: SecretName,
    /// Grows with each new value, from 1.
    pub version: u64,
    /// When the first value was stored.
    pub created: Timestamp,
    /// When the present value was stored.
    pub rotated: Timestamp,
}

/// The secrets of one tenant.
pub struct Vault {
    path: PathBuf,
    state: ArcSwap<State>,
    writing: Mutex<()>,
}

struct State {
    master: Arc<Key>,
    home: Home,
    document: Document,
    generation: u64,
}

impl Vault {
    /// Opens the secrets in `directory`, or makes an empty vault with a new log signer where there are none.
    ///
    /// Does not open under another key, nor what was changed, nor where secrets must have been and are gone.
    pub fn open(directory: &Path, key: MasterKey, tenant: TenantId, now: Timestamp) -> Result<Self, VaultFault> {
        if key.home == Home::Generated {
            return Err(VaultFault::NoHome);
        }
        let path = directory.join(FILE);
        let state = match read(&path)? {
            Some(bytes) => {
                let (document, master) = unlock(&bytes, &key, &path)?;
                if document.tenant != tenant {
                    return Err(VaultFault::OtherTenant { path, found: document.tenant });
                }
                State { master: Arc::new(master), home: key.home, document, generation: 1 }
            }
            None if directory.join(PUBLIC_FILE).exists() => return Err(VaultFault::Gone { path }),
            None => {
                let mut seed = KeyBytes::default();
                aws_lc_rs::rand::fill(seed.as_mut()).map_err(|_| VaultFault::Crypto)?;
                let master = Key::new(&key.bytes)?;
                let document = Document::new(tenant, &master, &seed, now)?;
                write(&path, &document.write(&master)?)?;
                State { master: Arc::new(master), home: key.home, document, generation: 1 }
            }
        };
        Ok(Self { path, state: ArcSwap::from_pointee(state), writing: Mutex::new(()) })
    }

    /// The value of a secret. Two short decryptions, no lock, no disk.
    pub fn get(&self, name: &SecretName) -> Result<Secret<String>, VaultFault> {
        let state = self.state.load();
        let mut plain = state.document.open(&state.master, name)?;
        String::from_utf8(mem::take(&mut *plain)).map(Secret::new).map_err(|_| VaultFault::Sealed(name.clone()))
    }

    /// Grows with each change: who keeps something that was made with a secret compares it.
    pub fn generation(&self) -> u64 {
        self.state.load().generation
    }

    /// Whether the master key is in a file of ours: then a new one can be made there, and must not come from elsewhere.
    pub fn keeps_its_key(&self) -> bool {
        match &self.state.load().home {
            Home::File(_) => true,
            Home::Elsewhere | Home::Generated => false,
        }
    }

    /// Every secret, by name. Never a value.
    pub fn list(&self) -> Vec<SecretInfo> {
        let state = self.state.load();
        let info = |(name, entry): (&SecretName, &document::Entry)| SecretInfo {
            name: name.clone(),
            version: entry.version,
            created: entry.created,
            rotated: entry.rotated,
        };
        state.document.secrets.iter().map(info).collect()
    }

    /// Stores a value under a new or an existing name. Returns its version.
    pub fn set(&self, name: &SecretName, value: &Secret<String>, now: Timestamp) -> Result<u64, VaultFault> {
        self.change(|document, master| document.put(master, name, value.expose(), now))
    }

    /// Replaces the value of a secret that exists. Returns its version.
    pub fn rotate(&self, name: &SecretName, value: &Secret<String>, now: Timestamp) -> Result<u64, VaultFault> {
        self.change(|document, master| {
            if !document.secrets.contains_key(name) {
                return Err(VaultFault::Unknown(name.clone()));
            }
            document.put(master, name, value.expose(), now)
        })
    }

    /// Removes a secret.
    pub fn rm(&self, name: &SecretName) -> Result<(), VaultFault> {
        self.change(|document, _| {
            document.secrets.remove(name).map(drop).ok_or_else(|| VaultFault::Unknown(name.clone()))
        })
    }

    /// What signs the log.
    pub fn audit_signer(&self) -> Result<AuditSigner, VaultFault> {
        let state = self.state.load();
        let tampered = |Broken| VaultFault::Tampered { path: self.path.clone() };
        AuditSigner::from_seed(&state.document.seed(&state.master).map_err(tampered)?)
    }

    /// Puts every secret under another master key.
    ///
    /// A [generated](MasterKey::generate) key takes the place of the old one in its file. A crash at any point leaves
    /// a directory that opens: the new key lies beside the old one before anything is under it.
    pub fn rotate_master(&self, new: MasterKey) -> Result<(), VaultFault> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.state.load_full();
        let file_fault = |path: &Path, cause| VaultFault::File { path: path.to_owned(), cause };
        let (home, replaced) = match (new.home, &before.home) {
            (Home::Generated, Home::File(path)) => (Home::File(path.clone()), Some((next_file(path), path.clone()))),
            (Home::Generated, Home::Elsewhere | Home::Generated) => return Err(VaultFault::NoHome),
            (home @ (Home::File(_) | Home::Elsewhere), _) => (home, None),
        };
        let master = Key::new(&new.bytes)?;
        let document = before.document.rewrap(&before.master, &master)?;
        let content = document.write(&master)?;
        if let Some((next, _)) = &replaced {
            file::replace(next, MasterKey::encode(&new.bytes).as_bytes()).map_err(|cause| file_fault(next, cause))?;
        }
        write(&self.path, &content)?;
        let generation = before.generation + 1;
        self.state.store(Arc::new(State { master: Arc::new(master), home, document, generation }));
        match replaced {
            Some((next, path)) => file::rename(&next, &path).map_err(|cause| file_fault(&path, cause)),
            None => Ok(()),
        }
    }

    /// Takes over what another process wrote. Returns whether anything changed. A file that does not open changes
    /// nothing.
    pub fn reload(&self) -> Result<bool, VaultFault> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.state.load_full();
        let bytes = read(&self.path)?.ok_or_else(|| VaultFault::Gone { path: self.path.clone() })?;
        let (document, master) = match (Document::read(&bytes, &before.master, &self.path), &before.home) {
            (Err(VaultFault::WrongKey { .. }), Home::File(key)) => {
                let directory = self.path.parent().unwrap_or(Path::new("."));
                let key = KeySource::File(key.clone()).load(directory)?;
                let (document, master) = unlock(&bytes, &key, &self.path)?;
                (document, Arc::new(master))
            }
            (read, _) => (read?, Arc::clone(&before.master)),
        };
        if document.tenant != before.document.tenant {
            return Err(VaultFault::OtherTenant { path: self.path.clone(), found: document.tenant });
        }
        if document == before.document {
            return Ok(false);
        }
        let generation = before.generation + 1;
        self.state.store(Arc::new(State { master, home: before.home.clone(), document, generation }));
        Ok(true)
    }

    /// Reads under the master key.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&Document, &Key) -> Result<T, VaultFault>) -> Result<T, VaultFault> {
        let state = self.state.load();
        read(&state.document, &state.master)
    }

    /// Makes one change: on disk first, then visible.
    pub(crate) fn change<T>(
        &self,
        change: impl FnOnce(&mut Document, &Key) -> Result<T, VaultFault>,
    ) -> Result<T, VaultFault> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.state.load_full();
        let mut document = before.document.clone();
        let answer = change(&mut document, &before.master)?;
        write(&self.path, &document.write(&before.master)?)?;
        self.state.store(Arc::new(State {
            master: Arc::clone(&before.master),
            home: before.home.clone(),
            document,
            generation: before.generation + 1,
        }));
        Ok(answer)
    }
}

/// Opens the file under the key, or under the one that an interrupted rotation left beside it, and ends that rotation.
fn unlock(bytes: &[u8], key: &MasterKey, path: &Path) -> Result<(Document, Key), VaultFault> {
    let master = Key::new(&key.bytes)?;
    let opened = Document::read(bytes, &master, path);
    let (Home::File(file), Some(next)) = (&key.home, &key.next) else {
        return opened.map(|document| (document, master));
    };
    let fault = |cause| VaultFault::File { path: file.clone(), cause };
    match opened {
        Err(VaultFault::WrongKey { .. }) => {
            let master = Key::new(next)?;
            let document = Document::read(bytes, &master, path)?;
            file::rename(&next_file(file), file).map_err(fault)?;
            Ok((document, master))
        }
        opened => {
            let document = opened?;
            fs::remove_file(next_file(file)).map_err(fault)?;
            Ok((document, master))
        }
    }
}

/// The names of the secrets in `directory`, without the key to them; none where there is no vault yet.
pub fn names(directory: &Path) -> Result<BTreeSet<SecretName>, VaultFault> {
    let path = directory.join(FILE);
    match read(&path)? {
        Some(bytes) => document::names(&bytes).map_err(|_| VaultFault::Tampered { path }),
        None => Ok(BTreeSet::new()),
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, VaultFault> {
    match file::read(path, LARGEST) {
        Ok(mut bytes) => Ok(Some(mem::take(&mut *bytes))),
        Err(ReadFault::Mode(mode)) => Err(VaultFault::Mode { path: path.to_owned(), mode }),
        Err(ReadFault::Io(cause)) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(ReadFault::Io(cause)) => Err(VaultFault::File { path: path.to_owned(), cause }),
    }
}

fn write(path: &Path, content: &[u8]) -> Result<(), VaultFault> {
    let fault = |cause| VaultFault::File { path: path.to_owned(), cause };
    if content.len() as u64 > LARGEST {
        return Err(fault(io::ErrorKind::FileTooLarge.into()));
    }
    file::replace(path, content).map_err(fault)
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault")
            .field("path", &self.path)
            .field("generation", &self.generation())
            .finish_non_exhaustive()
    }
}
