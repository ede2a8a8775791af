use super::*;
use proptest::prelude::*;
use std::convert::Infallible;

fn hex(text: &str) -> Vec<u8> {
    let digit = |byte: u8| u8::try_from(char::from(byte).to_digit(16).unwrap()).unwrap();
    text.as_bytes().chunks_exact(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

fn leaves(n: u64) -> Vec<Hash> {
    (0..n).map(|n| leaf_hash(&n.to_be_bytes())).collect()
}

fn over(hashes: &[Hash]) -> impl FnMut(u64, u64) -> Result<Hash, Infallible> {
    |low, high| Ok(root_of(&hashes[items(low)..items(high)]))
}

/// The eight leaves that implementations of RFC 6962 have tested with since its first.
const LEAVES: [&str; 8] =
    ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
const ROOTS: [&str; 8] = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];

#[test]
fn roots_are_those_of_the_known_trees() {
    let hashes: Vec<Hash> = LEAVES.iter().map(|leaf| leaf_hash(&hex(leaf))).collect();
    for (n, root) in ROOTS.iter().enumerate() {
        assert_eq!(root_of(&hashes[..=n]).to_vec(), hex(root), "{} leaves", n + 1);
    }
    let empty = hex("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert_eq!(root_of(&[]).to_vec(), empty);
}

#[test]
fn proofs_are_those_of_rfc_9162() {
    // §2.1.5: the tree of seven leaves d0 to d6.
    let leaf = leaves(7);
    let over_0_1 = node_hash(&leaf[0], &leaf[1]);
    let over_2_3 = node_hash(&leaf[2], &leaf[3]);
    let over_4_5 = node_hash(&leaf[4], &leaf[5]);
    let over_0_3 = node_hash(&over_0_1, &over_2_3);
    let over_4_6 = node_hash(&over_4_5, &leaf[6]);
    let path = |index| inclusion(index, 7, &mut over(&leaf)).unwrap();
    assert_eq!(path(0), [leaf[1], over_2_3, over_4_6]);
    assert_eq!(path(3), [leaf[2], over_0_1, over_4_6]);
    assert_eq!(path(4), [leaf[5], leaf[6], over_0_3]);
    assert_eq!(path(6), [over_4_5, over_0_3]);
    let proof = |old| consistency(old, 7, &mut over(&leaf)).unwrap();
    assert_eq!(proof(3), [leaf[2], leaf[3], over_0_1, over_4_6]);
    assert_eq!(proof(4), [over_4_6]);
    assert_eq!(proof(6), [over_4_5, leaf[6], over_0_3]);
}

#[test]
fn an_edge_knows_the_root_and_fills_tiles() {
    let all = leaves(70_000);
    let mut edge = Edge::default();
    let mut tiles = vec![0_u64; 3];
    for (n, leaf) in all.iter().enumerate() {
        edge.push(*leaf, |level, n, hashes| {
            assert_eq!((n, hashes.len()), (tiles[level as usize], WIDTH));
            tiles[level as usize] += 1;
        });
        if [0, 1, 254, 255, 256, 257, 511, 512, 65_535, 65_536, 65_792, 69_999].contains(&n) {
            assert_eq!(edge.root(), root_of(&all[..=n]), "{} leaves", n + 1);
        }
    }
    assert_eq!(tiles, [273, 1, 0], "the example of the specification");
    assert_eq!(edge.levels().map(|(_, hashes)| hashes.len()).collect::<Vec<_>>(), [112, 17, 1]);
}

proptest! {
    #[test]
    fn a_proof_of_inclusion_holds_for_its_leaf_and_nothing_else(size in 1_u64..600, seed: u64, bit in 0_usize..256) {
        let index = seed % size;
        let all = leaves(size);
        let (leaf, root) = (all[items(index)], root_of(&all));
        let proof = inclusion(index, size, &mut over(&all)).unwrap();
        prop_assert!(verify_inclusion(&leaf, index, size, &proof, &root));

        let mut bent = leaf;
        bent[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(!verify_inclusion(&bent, index, size, &proof, &root));
        if size > 1 {
            prop_assert!(!verify_inclusion(&leaf, (index + 1) % size, size, &proof, &root));
            prop_assert!(!verify_inclusion(&leaf, index, size, &proof[1..], &root));
        }
        prop_assert!(!verify_inclusion(&leaf, index, size, &[proof, vec![root]].concat(), &root));
    }

    #[test]
    fn a_proof_of_consistency_holds_for_its_prefix_and_nothing_else(new in 1_u64..600, seed: u64, bit in 0_usize..256) {
        let old = 1 + seed % new;
        let all = leaves(new);
        let (before, after) = (root_of(&all[..items(old)]), root_of(&all));
        let proof = consistency(old, new, &mut over(&all)).unwrap();
        prop_assert!(verify_consistency(old, new, &before, &after, &proof));

        let mut bent = before;
        bent[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(!verify_consistency(old, new, &bent, &after, &proof));
        let mut bent = after;
        bent[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(!verify_consistency(old, new, &before, &bent, &proof));
        prop_assert!(!verify_consistency(old, new, &before, &after, &[proof, vec![after]].concat()));
    }
}
