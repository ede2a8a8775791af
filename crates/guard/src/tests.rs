//! Canaries.
use crate::{Carry, Guards, Mode, Setting, Verdict};

#[test]
fn a_password_in_structured_content_is_masked() {
    let guards = Guards::new(Setting { results: Mode::Mask, arguments: Mode::Refuse });
    let seen = guards.release(br#"{"structuredContent":{"password":"hunter2!x","id":7}}"#, &mut Carry::default());
    let Verdict::Masked(bytes) = seen.verdict else { panic!("{seen:?}") };
    assert_eq!(String::from_utf8(bytes).unwrap(), r#"{"structuredContent":{"password":"[redacted:password]","id":7}}"#);
    assert_eq!(&*seen.findings[0].pointer, "/structuredContent/password");
}
