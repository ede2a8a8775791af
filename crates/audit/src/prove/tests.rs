use super::*;
use crate::{
    fixture::{self, call_id, filled},
    note::tests::signer,
    tree::verify_consistency,
};

fn tenant_tree() -> Tree {
    Tree::Tenant(fixture::tenant())
}

#[tokio::test]
async fn any_record_proves_itself_offline() {
    let place = filled(600).await;
    let public = signer(1).public;
    for index in [0, 1, 255, 256, 511, 512, 598, 599] {
        let text = prove(place.path(), &tenant_tree(), Which::Index(index)).unwrap();
        let proven = verify_proof(&text, None, &public).unwrap();
        assert_eq!((proven.index, proven.checkpoint.size()), (index, 600));
        assert!(String::from_utf8(proven.leaf).unwrap().starts_with(&format!("{{\"index\":{index},")));
    }
    let text = prove(place.path(), &tenant_tree(), Which::Call(call_id(300))).unwrap();
    assert_eq!(verify_proof(&text, None, &public).unwrap().index, 300);
    assert!(matches!(prove(place.path(), &tenant_tree(), Which::Index(600)), Err(ProveFault::Missing)));
    assert!(matches!(prove(place.path(), &tenant_tree(), Which::Call(call_id(900))), Err(ProveFault::Missing)));
}

#[tokio::test]
async fn a_proof_of_one_record_proves_no_other() {
    let place = filled(3).await;
    let public = signer(1).public;
    let text = prove(place.path(), &tenant_tree(), Which::Index(1)).unwrap();
    let proven = verify_proof(&text, None, &public).unwrap();
    assert_eq!(verify_proof(&text, Some(&proven.leaf), &public).as_ref(), Ok(&proven));

    assert_eq!(verify_proof(&text, Some(b"another"), &public), Err(ProofFault::NotIncluded));
    let moved = text.replacen("\nindex 1\n", "\nindex 2\n", 1);
    assert_eq!(verify_proof(&moved, None, &public), Err(ProofFault::NotIncluded));
    let grown = text.replacen("\n3\n", "\n4\n", 1);
    assert_eq!(verify_proof(&grown, None, &public), Err(ProofFault::Checkpoint(NoteFault::Forged)));
    assert_eq!(verify_proof(&text, None, &signer(2).public), Err(ProofFault::Checkpoint(NoteFault::Unsigned)));
    for bad in [
        "",
        "c2sp.org/tlog-proof@v1\n\n",
        "c2sp.org/tlog-proof@v1\nindex 01\n\nx",
        "c2sp.org/tlog-proof@v1\nindex 0\n!\n\nx",
    ] {
        assert!(matches!(verify_proof(bad, Some(b""), &public), Err(ProofFault::Malformed(_))), "{bad:?}");
    }
}

#[tokio::test]
async fn a_log_shows_that_it_only_grew() {
    let place = filled(300).await;
    let log = place.open();
    let old = log.checkpoint().unwrap();
    for n in 300..900 {
        log.append_unwatched(fixture::closed(n)).unwrap();
    }
    log.flush().await.unwrap();
    let new = log.checkpoint().unwrap();
    let proof = prove_consistency(place.path(), &tenant_tree(), old.size()).unwrap();
    assert!(verify_consistency(old.size(), new.size(), old.root(), new.root(), &proof));
    assert_eq!((old.size(), new.size()), (300, 900));
}
