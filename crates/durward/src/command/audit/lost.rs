//! Whether a tree without records is new, or was taken from its place.
//!
//! A tree of which nothing is signed reads like one that was moved: as empty. What tells them apart is verification.

use super::{LOOK, public_key_in};
use crate::directory;
use ::audit::{Broken, ReadFault, Reader, Tree};
use anyhow::Result;
use std::path::Path;

/// What verification says of a log in which one of these trees is not, or another lies in its place.
pub(super) async fn broken(log: &Path, data: &Path, trees: &[Tree]) -> Result<Option<Broken>> {
    if trees.iter().all(|tree| is_there(log, tree)) {
        return Ok(None);
    }
    let public = public_key_in(&directory::public_key_path(data))?;
    let verify = || ::audit::verify(log, &public, None, Some(&directory::newest_path(data)));
    if verify().is_ok() {
        return Ok(None);
    }
    // While a tree is signed for the first time it looks, for a moment, as if its checkpoint were missing.
    tokio::time::sleep(LOOK).await;
    Ok(verify().err())
}

/// What cannot be read for another reason is said by whoever reads it.
fn is_there(log: &Path, tree: &Tree) -> bool {
    match Reader::open(log, tree) {
        Ok(reader) => reader.note().is_some(),
        Err(ReadFault::Other { .. }) => false,
        Err(ReadFault::Disk(_) | ReadFault::Checkpoint(_) | ReadFault::Record { .. }) => true,
    }
}
