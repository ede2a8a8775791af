//! The Merkle tree of RFC 6962 and RFC 9162: hashes, roots, proofs, and their checks.
//!
//! Pure: where hashes come from is the caller's business.

use vocab::Digest;

/// A SHA-256 hash of a leaf or a node.
pub type Hash = [u8; 32];

/// What goes before a leaf when it is hashed.
pub(crate) const LEAF: u8 = 0;

/// The hash of a leaf.
pub fn leaf_hash(leaf: &[u8]) -> Hash {
    *Digest::of_parts(&[&[LEAF], leaf]).as_bytes()
}

/// The hash of an inner node.
pub(crate) fn node_hash(left: &Hash, right: &Hash) -> Hash {
    *Digest::of_parts(&[&[1], left, right]).as_bytes()
}

/// The root over `hashes`, which may be leaves or complete subtrees of one height, the last one possibly incomplete.
pub(crate) fn root_of(hashes: &[Hash]) -> Hash {
    match hashes {
        [] => *Digest::of(b"").as_bytes(),
        [only] => *only,
        _ => {
            let (left, right) = hashes.split_at_checked(items(split(hashes.len() as u64))).unwrap_or((hashes, &[]));
            node_hash(&root_of(left), &root_of(right))
        }
    }
}

/// A count or place in memory, as an index of a slice.
pub(crate) fn items(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

/// The largest power of two smaller than `size`, which is at least 2.
pub(crate) const fn split(size: u64) -> u64 {
    1 << (u64::BITS - 1 - (size - 1).leading_zeros())
}

/// The path from leaf `index` to the root of a tree of `size`. `root(lo, hi)` gives the root over the leaves `lo..hi`.
pub(crate) fn inclusion<E>(
    index: u64,
    size: u64,
    root: &mut impl FnMut(u64, u64) -> Result<Hash, E>,
) -> Result<Vec<Hash>, E> {
    let (mut low, mut high) = (0, size);
    let mut path = Vec::new();
    while high - low > 1 {
        let middle = low + split(high - low);
        if index < middle {
            path.push(root(middle, high)?);
            high = middle;
        } else {
            path.push(root(low, middle)?);
            low = middle;
        }
    }
    path.reverse();
    Ok(path)
}

/// The proof that the tree of `old` leaves is a prefix of the tree of `new` leaves; `0 < old <= new`.
pub(crate) fn consistency<E>(
    old: u64,
    new: u64,
    root: &mut impl FnMut(u64, u64) -> Result<Hash, E>,
) -> Result<Vec<Hash>, E> {
    let (mut low, mut high) = (0, new);
    let mut proof = Vec::new();
    while old != high {
        let middle = low + split(high - low);
        if old <= middle {
            proof.push(root(middle, high)?);
            high = middle;
        } else {
            proof.push(root(low, middle)?);
            low = middle;
        }
    }
    if low != 0 {
        proof.push(root(low, high)?);
    }
    proof.reverse();
    Ok(proof)
}

/// Hashes in a full tile.
const WIDTH: usize = 256;

/// The right edge of a growing tree: all that is needed to add leaves and know the root.
#[derive(Debug, Default)]
pub(crate) struct Edge {
    size: u64,
    /// Level by level (of 256 children each), the hashes that do not fill a tile yet.
    levels: Vec<Vec<Hash>>,
}

impl Edge {
    /// The edge of a tree of `size`, from its unfinished tiles.
    pub(crate) const fn of(size: u64, levels: Vec<Vec<Hash>>) -> Self {
        Self { size, levels }
    }

    pub(crate) const fn size(&self) -> u64 {
        self.size
    }

    /// The hashes of the leaves in the unfinished tile.
    pub(crate) fn leaves(&self) -> &[Hash] {
        self.levels.first().map(Vec::as_slice).unwrap_or_default()
    }

    /// The unfinished tiles, by level.
    pub(crate) fn levels(&self) -> impl Iterator<Item = (u32, &[Hash])> {
        (0..).zip(self.levels.iter().map(Vec::as_slice))
    }

    /// Adds a leaf; `full(level, n, hashes)` hears of each tile that it fills.
    pub(crate) fn push(&mut self, leaf: Hash, mut full: impl FnMut(u32, u64, &[Hash])) {
        self.size += 1;
        let mut carry = leaf;
        for level in 0_u32.. {
            if self.levels.len() <= level as usize {
                self.levels.push(Vec::with_capacity(WIDTH));
            }
            let Some(hashes) = self.levels.get_mut(level as usize) else { return };
            hashes.push(carry);
            if hashes.len() < WIDTH {
                return;
            }
            full(level, (self.size >> (8 * (level + 1))) - 1, hashes);
            carry = root_of(hashes);
            hashes.clear();
        }
    }

    /// The root of the tree as it is.
    pub(crate) fn root(&self) -> Hash {
        let mut below: Option<Hash> = None;
        for hashes in &self.levels {
            // An unfinished subtree is the last child of the level above, as RFC 6962 splits.
            let row: Vec<Hash> = hashes.iter().copied().chain(below).collect();
            if !row.is_empty() {
                below = Some(root_of(&row));
            }
        }
        below.unwrap_or_else(|| root_of(&[]))
    }
}

/// Whether `proof` leads from the leaf `leaf` at `index` to `root` (RFC 9162 §2.1.3.2).
pub fn verify_inclusion(leaf: &Hash, index: u64, size: u64, proof: &[Hash], root: &Hash) -> bool {
    if index >= size {
        return false;
    }
    let (mut node, mut last) = (index, size - 1);
    let mut hash = *leaf;
    for sibling in proof {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *root
}

/// Whether `proof` shows that the tree with `old_root` is a prefix of the one with `new_root` (RFC 9162 §2.1.4.2).
pub fn verify_consistency(old: u64, new: u64, old_root: &Hash, new_root: &Hash, proof: &[Hash]) -> bool {
    if old > new {
        return false;
    }
    if old == new {
        return proof.is_empty() && old_root == new_root;
    }
    if old == 0 {
        // Every tree extends the empty one: there is nothing to prove, and nothing is proven.
        return false;
    }
    let mut rest = proof.iter();
    let start = if old.is_power_of_two() { Some(old_root) } else { rest.next() };
    let Some(start) = start else { return false };
    let (mut node, mut last) = (old - 1, new - 1);
    while node & 1 == 1 {
        node >>= 1;
        last >>= 1;
    }
    let (mut first_hash, mut second_hash) = (*start, *start);
    let mut took = false;
    for sibling in rest {
        took = true;
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            first_hash = node_hash(sibling, &first_hash);
            second_hash = node_hash(sibling, &second_hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            second_hash = node_hash(&second_hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    took && last == 0 && first_hash == *old_root && second_hash == *new_root
}

#[cfg(test)]
mod tests;
