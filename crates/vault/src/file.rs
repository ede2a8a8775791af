//! Files that only their owner reads, replaced whole or not at all.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};
use zeroize::Zeroizing;

/// Why a private file was not read.
#[derive(Debug)]
pub(crate) enum ReadFault {
    Io(io::Error),
    Mode(u32),
}

/// Reads at most `limit` bytes of a file that nobody but its owner may read.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Zeroizing<Vec<u8>>, ReadFault> {
    let file = File::open(path).map_err(ReadFault::Io)?;
    let metadata = file.metadata().map_err(ReadFault::Io)?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(ReadFault::Mode(mode));
    }
    if metadata.len() > limit {
        return Err(ReadFault::Io(io::ErrorKind::FileTooLarge.into()));
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0)));
    file.take(limit).read_to_end(&mut bytes).map_err(ReadFault::Io)?;
    Ok(bytes)
}

/// Replaces `path`: the new content is on disk before the name points to it.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let next = path.with_added_extension("new");
    write(OpenOptions::new().create(true).truncate(true), &next, content)?;
    rename(&next, path)
}

/// Creates `path`, which must not exist.
pub(crate) fn create(path: &Path, content: &[u8]) -> io::Result<()> {
    write(OpenOptions::new().create_new(true), path, content)?;
    sync_directory(path)
}

/// Renames within a directory, durably.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_directory(to)
}

fn write(options: &mut OpenOptions, path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = options.write(true).mode(0o600).open(path)?;
    // A file that was left behind may have other permissions.
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    file.write_all(content)?;
    file.sync_all()
}

fn sync_directory(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}
