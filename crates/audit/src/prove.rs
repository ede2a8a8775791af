//! Proofs that leave the house: one record, its path to the root, and the signed checkpoint (C2SP tlog-proof).
//!
//! The record itself travels in the `extra` line, so that one file and the public key are all a verifier needs.

use crate::{
    note::{self, Checkpoint, NoteFault},
    read::{ReadFault, Reader},
    tile::Tree,
    tree::{self, Hash},
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use std::{io, path::Path};
use vocab::CallId;

const FIRST_LINE: &str = "c2sp.org/tlog-proof@v1";

/// No path is longer: indexes have 64 bits.
const LONGEST_PATH: usize = 64;

/// Which record to prove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The record at this index.
    Index(u64),
    /// The record that closes this call, or its intent while it is open.
    Call(CallId),
}

/// Why there is no proof.
#[derive(Debug, thiserror::Error)]
pub enum ProveFault {
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadFault),
    /// The tiles cannot be read.
    #[error("the tiles of the log cannot be read")]
    Disk(#[from] io::Error),
    /// There is no such record under the newest checkpoint.
    #[error("no such record is signed yet")]
    Missing,
}

/// Makes the `.tlog-proof` text of one record.
pub fn prove(dir: &Path, tree: &Tree, which: Which) -> Result<String, ProveFault> {
    let reader = Reader::open(dir, tree)?;
    let entry = match which {
        Which::Index(index) => reader.get(index)?,
        Which::Call(call) => reader.find(&call)?.pop(),
    };
    let (Some(entry), Some(note)) = (entry, reader.note()) else { return Err(ProveFault::Missing) };
    let path = tree::inclusion(entry.index, reader.size(), &mut |low, high| reader.store().root(low, high))?;
    let mut text = format!("{FIRST_LINE}\nextra {}\nindex {}\n", BASE64.encode(&entry.leaf), entry.index);
    for hash in path {
        text.push_str(&BASE64.encode(hash));
        text.push('\n');
    }
    text.push('\n');
    text.push_str(note);
    Ok(text)
}

/// The hashes that prove that the tree of `old` records is a prefix of the newest signed one.
pub fn prove_consistency(dir: &Path, tree: &Tree, old: u64) -> Result<Vec<Hash>, ProveFault> {
    let reader = Reader::open(dir, tree)?;
    if old == 0 || old > reader.size() {
        return Err(ProveFault::Missing);
    }
    Ok(tree::consistency(old, reader.size(), &mut |low, high| reader.store().root(low, high))?)
}

/// Why a proof does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofFault {
    /// Not a proof at all.
    #[error("it is not a proof: {0}")]
    Malformed(&'static str),
    /// The checkpoint in it cannot be trusted.
    #[error("its checkpoint cannot be trusted: {0}")]
    Checkpoint(#[from] NoteFault),
    /// The record is not the one that was logged there.
    #[error("the record is not in the tree that was signed")]
    NotIncluded,
}

/// What a proof shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// The index of the record.
    pub index: u64,
    /// The record.
    pub leaf: Vec<u8>,
    /// The tree it is in.
    pub checkpoint: Checkpoint,
}

/// Checks a `.tlog-proof` offline. The record is `leaf`, or else the one that the proof carries.
pub fn verify_proof(text: &str, leaf: Option<&[u8]>, public: &[u8; 32]) -> Result<Proven, ProofFault> {
    let (proof, checkpoint) = text.split_once("\n\n").ok_or(ProofFault::Malformed("it has no checkpoint"))?;
    let mut lines = proof.split('\n');
    if lines.next() != Some(FIRST_LINE) {
        return Err(ProofFault::Malformed("its first line is another"));
    }
    let mut line = lines.next();
    let mut carried = None;
    if let Some(extra) = line.and_then(|line| line.strip_prefix("extra ")) {
        carried = Some(BASE64.decode(extra).map_err(|_| ProofFault::Malformed("its extra line is not base64"))?);
        line = lines.next();
    }
    let index = line
        .and_then(|line| line.strip_prefix("index "))
        .and_then(note::decimal)
        .ok_or(ProofFault::Malformed("it has no index"))?;
    let mut path = Vec::new();
    for line in lines {
        if path.len() == LONGEST_PATH {
            return Err(ProofFault::Malformed("its path is too long"));
        }
        path.push(note::read_hash(line).ok_or(ProofFault::Malformed("a line of its path is not a hash"))?);
    }
    let leaf = match (leaf, carried) {
        (Some(leaf), _) => leaf.to_vec(),
        (None, Some(carried)) => carried,
        (None, None) => return Err(ProofFault::Malformed("it carries no record, and none is given")),
    };
    let checkpoint = Checkpoint::open(checkpoint, public)?;
    if tree::verify_inclusion(&tree::leaf_hash(&leaf), index, checkpoint.size(), &path, checkpoint.root()) {
        Ok(Proven { index, leaf, checkpoint })
    } else {
        Err(ProofFault::NotIncluded)
    }
}

#[cfg(test)]
mod tests;
