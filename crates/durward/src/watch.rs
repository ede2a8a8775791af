//! Notices that something changed of what the configuration names: itself, policies, certificates, roots, keys.
//!
//! Watches folders, because files are replaced more often than they are written. Reads no file: whether there is
//! anything new is for the reload to find out.

use crate::config::{Look, Part};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};
use tokio::sync::mpsc;

/// The most folders that are watched. The system has a bound, too, which all programs of a user share.
const MOST: usize = 1024;

/// The folders in which something counts, as they are now.
#[derive(Default, PartialEq)]
pub(crate) struct Watched {
    places: BTreeMap<PathBuf, Place>,
    /// Links that lead to some of them: when one is gone, nobody could tell that it was one.
    links: BTreeSet<PathBuf>,
    /// Those that are too many.
    left_out: BTreeSet<PathBuf>,
}

#[derive(PartialEq)]
struct Place {
    which: Which,
    parts: Vec<Part>,
}

/// Another folder of the same name is another one. Its number alone may be that of one that is gone.
#[derive(PartialEq)]
struct Which {
    device: u64,
    number: u64,
    made: Option<SystemTime>,
}

impl Watched {
    /// What these looks lead to now. Folders that are not there are left to those above them.
    pub(crate) fn of(looks: impl Iterator<Item = Look>) -> Self {
        let mut watched = Self::default();
        for Look { folder, part } in looks {
            watched.links.extend(link(&folder));
            let Ok((folder, which)) = found(&folder) else { continue };
            let is_full = watched.places.len() >= MOST;
            match watched.places.entry(folder) {
                Entry::Occupied(mut known) if !known.get().parts.contains(&part) => known.get_mut().parts.push(part),
                Entry::Occupied(_) => {}
                Entry::Vacant(new) if is_full => {
                    watched.left_out.insert(new.into_key());
                }
                Entry::Vacant(new) => {
                    new.insert(Place { which, parts: vec![part] });
                }
            }
        }
        watched
    }

    /// Tells `changed` of all that counts, for as long as the watcher is kept. Where that cannot be done, it is said.
    pub(crate) fn begin(self: &Arc<Self>, changed: &mpsc::Sender<()>) -> Option<RecommendedWatcher> {
        let (watched, changed) = (Arc::clone(self), changed.clone());
        let told = move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| watched.concerns(&event)) {
                let _ = changed.try_send(());
            }
        };
        let mut watcher = match notify::recommended_watcher(told) {
            Ok(watcher) => watcher,
            Err(fault) => {
                tracing::warn!(%fault, "no change of a file is noticed; send SIGHUP instead");
                return None;
            }
        };
        let mut unheard = None;
        let mut count = self.left_out.len();
        for folder in self.places.keys() {
            if let Err(fault) = watcher.watch(folder, RecursiveMode::NonRecursive) {
                count += 1;
                unheard.get_or_insert((folder, fault.to_string()));
            }
        }
        let too_many = || Some((self.left_out.first()?, format!("more than {MOST} folders would have to be watched")));
        if let Some((folder, fault)) = unheard.or_else(too_many) {
            let folder = folder.display();
            tracing::warn!(%folder, folders = count, fault, "changes here are not noticed; send SIGHUP instead");
        }
        Some(watcher)
    }

    fn concerns(&self, event: &notify::Event) -> bool {
        event.need_rescan() || !event.kind.is_access() && event.paths.iter().any(|path| self.counts(path))
    }

    /// Whether what is at `path` may be one of those that are read. What we say ourselves may go into a file beside
    /// them: a gateway that read its configuration again for that would never come to rest.
    fn counts(&self, path: &Path) -> bool {
        // It went, or another came in its place.
        if self.places.contains_key(path) || self.links.contains(path) {
            return true;
        }
        let Some(place) = path.parent().and_then(|folder| self.places.get(folder)) else { return false };
        // A mounted volume is swapped by a link of such a name.
        let is_link = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".."));
        is_link || place.parts.iter().any(|part| part.fits(path))
    }
}

/// Where a link to a folder stands, if it is one.
fn link(folder: &Path) -> Option<PathBuf> {
    let (above, name) = (folder.parent()?, folder.file_name()?);
    let above = if above == Path::new("") { Path::new(".") } else { above };
    folder.is_symlink().then(|| above.canonicalize().ok())?.map(|above| above.join(name))
}

/// Where a folder really is, and which one it is.
fn found(folder: &Path) -> io::Result<(PathBuf, Which)> {
    let folder = folder.canonicalize()?;
    let metadata = fs::metadata(&folder)?;
    if !metadata.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    let which = Which { device: metadata.dev(), number: metadata.ino(), made: metadata.created().ok() };
    Ok((folder, which))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::looks;

    #[test]
    fn a_link_to_a_folder_counts_when_it_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path().canonicalize().unwrap();
        fs::create_dir_all(top.join("elsewhere")).unwrap();
        fs::create_dir_all(top.join("policies")).unwrap();
        std::os::unix::fs::symlink("../elsewhere", top.join("policies/team")).unwrap();
        let watched = Watched::of(looks(&top, "policies/**/*.json").into_iter());
        fs::remove_file(top.join("policies/team")).unwrap();
        assert!(watched.counts(&top.join("policies/team")) && !watched.counts(&top.join("policies/other")));
        assert!(watched.counts(&top.join("elsewhere/new.json")));
    }

    #[test]
    fn a_huge_tree_is_watched_from_its_top_and_the_rest_is_known() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..MOST {
            fs::create_dir_all(folder.path().join(format!("{number}/deep"))).unwrap();
        }

        let watched = Watched::of(looks(folder.path(), "**/*.json").into_iter());

        assert_eq!(watched.places.len(), MOST);
        assert_eq!(watched.left_out.len(), MOST + 1);
        let top = folder.path().canonicalize().unwrap();
        assert!(watched.counts(&top.join("new.json")) && !watched.counts(&top.join("said.log")));
        assert!(watched.left_out.iter().filter(|left| left.ends_with("deep")).count() >= MOST);
    }
}
