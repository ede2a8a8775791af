//! The log: an append-only Merkle tree that nobody can quietly change.
//!
//! Records, appending, proving, verifying, reading. Signs and seals through functions it is handed; holds no key but the salts
//! of its commitments, reads no clock, and knows nothing of calls but what their records say.

mod anchor;
mod commit;
mod disk;
#[cfg(test)]
mod fixture;
mod grow;
mod journal;
mod log;
mod note;
mod prove;
mod read;
mod record;
mod text;
mod tile;
mod tree;
mod verify;
mod writer;

pub use commit::{Fingerprint, Salt, Salts, SaltsFault};
pub use log::{Log, LogFault, OpenFault, Options, Pending, Stats};
pub use note::{Checkpoint, NoteFault, Sign, Signer, verifier_key};
pub use prove::{ProofFault, ProveFault, Proven, Which, prove, prove_consistency, verify_proof};
pub use read::{Entry, Filter, Order, Page, Query, ReadFault, Reader};
pub use record::{AdminRecord, CallRecord, Commitment, Intent, Leaf, Outcome, Stage, SystemRecord};
pub use text::{
    DayKey, Keeping, Kept, Make, Seal, SealFault, Sealer, Text, TextStats, Texts, Unlock,
    erase::{Days, Erased, Erasure},
};
pub use tile::Tree;
pub use tree::{Hash, leaf_hash, verify_consistency, verify_inclusion};
pub use verify::{Broken, Verified, VerifiedTree, What, verify};
