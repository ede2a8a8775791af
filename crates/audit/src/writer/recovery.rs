//! One tree, built again from the journal and held against what was signed.

use crate::{
    grow::Growth,
    log::OpenFault,
    note::{Checkpoint, Signer},
    record::{Effect, Outline},
    tile::Store,
    tree::Hash,
};
use vocab::TenantId;

/// One tree while the journal is replayed.
pub(super) struct Recovery {
    tree: Growth,
    /// The newest checkpoint, and whether the tree has been seen to agree with it.
    checkpoint: Option<(Checkpoint, bool)>,
    /// The one that is kept beside the log, in the same way.
    anchor: Option<(Checkpoint, bool)>,
}

impl Recovery {
    pub(super) fn start(
        store: Store,
        origin: String,
        base: u64,
        signer: &Signer,
        anchored: &[Checkpoint],
    ) -> Result<Self, OpenFault> {
        let fault = |cause| OpenFault::Disk { path: store.dir.clone(), cause };
        let checkpoint = match store.checkpoint().map_err(fault)? {
            Some(note) => Some(Checkpoint::open(&note, &signer.public).map_err(OpenFault::Checkpoint)?),
            None => None,
        };
        if let Some(checkpoint) = &checkpoint
            && checkpoint.origin() != origin
        {
            return Err(OpenFault::Damaged(format!(
                "the checkpoint is that of `{}`, not of `{origin}`",
                checkpoint.origin()
            )));
        }
        let seen = |checkpoint: Checkpoint| {
            // Below that all lies in full tiles alone.
            let agreed = checkpoint.size() <= base;
            if agreed && store.root(0, checkpoint.size()).map_err(fault)? != *checkpoint.root() {
                return Err(disagree(&origin, &checkpoint));
            }
            Ok((checkpoint, agreed))
        };
        let checkpoint = checkpoint.map(seen).transpose()?;
        let anchor = anchored.iter().find(|anchor| anchor.origin() == origin);
        let anchor = anchor.cloned().map(seen).transpose()?;
        let dir = store.dir.clone();
        let tree = Growth::at(store, origin, base).map_err(|cause| OpenFault::Disk { path: dir, cause })?;
        Ok(Self { tree, checkpoint, anchor })
    }

    /// Adds a leaf unless it is there already. Gives its index and what it does to the open intents.
    pub(super) fn replay(&mut self, leaf: &[u8], hash: Hash, tenant: &TenantId) -> Result<(u64, Effect), OpenFault> {
        let outline =
            Outline::read(leaf).map_err(|cause| OpenFault::Damaged(format!("the journal holds no record: {cause}")))?;
        if outline.record.tenant != *tenant {
            return Err(OpenFault::Damaged(format!("it belongs to the tenant `{}`", outline.record.tenant)));
        }
        let size = self.tree.size();
        if outline.index < size {
            return Ok((outline.index, Effect::None));
        }
        if outline.index > size {
            return Err(OpenFault::Damaged(format!(
                "record {size} of `{}` is missing in the journal",
                self.tree.origin()
            )));
        }
        self.tree.push(leaf, hash);
        for (checkpoint, agreed) in [&mut self.checkpoint, &mut self.anchor].into_iter().flatten() {
            if checkpoint.size() == self.tree.size() {
                *agreed = self.tree.root() == *checkpoint.root();
                if !*agreed {
                    return Err(disagree(self.tree.origin(), checkpoint));
                }
            }
        }
        Ok((size, outline.effect()))
    }

    pub(super) fn finish(mut self) -> Result<(Growth, Option<Checkpoint>), OpenFault> {
        if let Some((anchor, false)) = &self.anchor {
            let (origin, size) = (self.tree.origin().to_owned(), self.tree.size());
            return Err(OpenFault::SetBack { origin, size, signed: anchor.size() });
        }
        match self.checkpoint {
            Some((checkpoint, true)) => {
                self.tree.follow(checkpoint.clone());
                Ok((self.tree, Some(checkpoint)))
            }
            Some((checkpoint, false)) => Err(OpenFault::Damaged(format!(
                "`{}` was signed with {} records and has {}",
                self.tree.origin(),
                checkpoint.size(),
                self.tree.size()
            ))),
            None => Ok((self.tree, None)),
        }
    }
}

fn disagree(origin: &str, checkpoint: &Checkpoint) -> OpenFault {
    OpenFault::Damaged(format!("the first {} records of `{origin}` are not those that were signed", checkpoint.size()))
}
