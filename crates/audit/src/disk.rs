//! What the log does to the disk, in one place, so that a test can make it fail.
//!
//! Knows nothing about logs.

use std::{
    fmt::Display,
    fs::{self, File},
    io,
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::Path,
};

/// Writes over a file before its name goes: what the file system makes of that is its own affair. What does not exist is
/// destroyed already.
pub(crate) fn destroy(path: &Path) -> io::Result<()> {
    if blank(path)? { fs::remove_file(path) } else { Ok(()) }
}

/// Writes over what stands in a file. Whether there is a file.
pub(crate) fn blank(path: &Path) -> io::Result<bool> {
    let file = match File::options().write(true).open(path) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(false),
        file => file?,
    };
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(0).min(4096);
    file.write_all_at(&vec![0; length], 0)?;
    file.sync_all()?;
    Ok(true)
}

/// Whether this is what [`blank`] leaves.
pub(crate) fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// Whether `path` still names what was opened there. Whoever holds a file can write into it long after it was removed or
/// moved away, and nothing tells.
pub(crate) fn in_place(opened: &File, path: &Path) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().display();
    let named = fs::metadata(path).map_err(|cause| displaced(&name, &cause.to_string()))?;
    let opened = opened.metadata()?;
    if (named.dev(), named.ino()) == (opened.dev(), opened.ino()) {
        return Ok(());
    }
    Err(displaced(&name, "another stands there"))
}

/// Says that what was there is not. The directory of the log stays out of it: callers are told.
pub(crate) fn displaced(name: impl Display, why: &str) -> io::Error {
    io::Error::other(format!("`{name}` was removed or moved away while it is in use: {why}"))
}

/// The disk. In tests it can be made full.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk {
    #[cfg(test)]
    pub(crate) full: std::sync::Arc<std::sync::atomic::AtomicBool>,
    /// Takes what is written, and cannot say that it is safe.
    #[cfg(test)]
    pub(crate) unsafe_now: std::sync::Arc<std::sync::atomic::AtomicBool>,
}

#[expect(clippy::unused_self, reason = "only a disk of a test has a state")]
impl Disk {
    /// A file to write into at any place, empty unless `keep`.
    pub(crate) fn open(&self, path: &Path, keep: bool) -> io::Result<File> {
        File::options().create(true).truncate(!keep).write(true).read(true).mode(0o600).open(path)
    }

    /// Writes all of `bytes` at `offset`.
    pub(crate) fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.fail_halfway(file, bytes, offset)?;
        file.write_all_at(bytes, offset)
    }

    /// Returns when the file's bytes are on the disk.
    pub(crate) fn sync(&self, file: &File) -> io::Result<()> {
        #[cfg(test)]
        if self.unsafe_now.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(io::Error::other("input/output error"));
        }
        file.sync_data()
    }

    /// Puts a whole file in place at once: readers see the old one or the new one.
    pub(crate) fn replace(&self, path: &Path, bytes: &[u8], durable: bool) -> io::Result<()> {
        let draft = path.with_extension("draft");
        let file = self.open(&draft, false)?;
        self.write_at(&file, bytes, 0)?;
        if durable {
            self.sync(&file)?;
        }
        fs::rename(&draft, path)
    }

    /// Makes a directory and what is above it.
    pub(crate) fn create_dir(&self, path: &Path) -> io::Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
    }

    /// Returns when the names in a directory are on the disk.
    pub(crate) fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    /// Returns when everything written so far to the file system of `path` is on the disk.
    pub(crate) fn sync_all(&self, path: &Path) -> io::Result<()> {
        rustix::fs::syncfs(File::open(path)?).map_err(Into::into)
    }

    #[cfg(not(test))]
    #[expect(clippy::unnecessary_wraps, reason = "fails in tests")]
    const fn fail_halfway(&self, _file: &File, _bytes: &[u8], _offset: u64) -> io::Result<()> {
        Ok(())
    }

    /// Writes half of it, then gets the error of a full disk from the one that is always full.
    #[cfg(test)]
    fn fail_halfway(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        if !self.full.load(std::sync::atomic::Ordering::SeqCst) {
            return Ok(());
        }
        let (half, rest) = bytes.split_at(bytes.len() / 2);
        file.write_all_at(half, offset)?;
        io::Write::write_all(&mut File::options().write(true).open("/dev/full")?, rest)
    }
}
