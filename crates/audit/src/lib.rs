//! The log: an append-only Merkle tree that nobody can quietly change.
//!
//! Records, appending, proving, verifying, reading. Signs through a function it is handed; holds no key but the salts
//! of its commitments, reads no clock, and knows nothing of calls but what their records say.

mod commit;
mod disk;
mod grow;
mod journal;
mod log;
mod note;
mod record;
mod tile;
mod tree;
mod writer;

pub use commit::{Salts, SaltsFault};
pub use log::{Log, LogFault, OpenFault, Options, Pending, Stats};
pub use note::{Checkpoint, NoteFault, Signer, verifier_key};
pub use record::{AdminRecord, CallRecord, Commitment, Intent, Leaf, Outcome, Stage, SystemRecord};
pub use tree::{Hash, leaf_hash, verify_consistency, verify_inclusion};
