//! The stories of this crate.

use super::*;
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};
use tempfile::TempDir;
use vocab::{Secret, SecretName, TenantId, Timestamp};

const CANARY: &str = "canary-4f1c-value";
const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

struct World {
    directory: TempDir,
}

impl World {
    fn new() -> Self {
        Self { directory: TempDir::new().unwrap() }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn key_file(&self) -> PathBuf {
        self.path().join("master.key")
    }

    fn secrets(&self) -> PathBuf {
        self.path().join("secrets.json")
    }

    fn load(&self) -> Result<MasterKey, KeyFault> {
        KeySource::File(self.key_file()).load(self.path())
    }

    fn open(&self) -> Result<Vault, VaultFault> {
        Vault::open(self.path(), self.load()?, TenantId::default_tenant(), at(0))
    }

    fn open_with(&self, text: &str) -> Result<Vault, VaultFault> {
        let key = KeySource::Value(secret(text)).load(self.path())?;
        Vault::open(self.path(), key, TenantId::default_tenant(), at(0))
    }

    fn filled(self) -> Self {
        self.open().unwrap().set(&name("token"), &secret(CANARY), at(1)).unwrap();
        self
    }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(seconds)
}

fn name(text: &str) -> SecretName {
    SecretName::new(text).unwrap()
}

fn secret(text: &str) -> Secret<String> {
    Secret::new(text.to_owned())
}

fn value(vault: &Vault, of: &str) -> String {
    vault.get(&name(of)).unwrap().expose().clone()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Every text an error prints, causes included.
fn texts(fault: &dyn std::error::Error) -> String {
    let mut all = format!("{fault} {fault:?}");
    let mut cause = fault.source();
    while let Some(error) = cause {
        all = format!("{all} {error} {error:?}");
        cause = error.source();
    }
    all
}

#[test]
fn a_secret_survives_a_restart_and_never_lies_in_clear() {
    let world = World::new();
    let vault = world.open().unwrap();
    let before = vault.generation();
    assert_eq!(vault.set(&name("token"), &secret(CANARY), at(1)).unwrap(), 1);
    assert_eq!(vault.rotate(&name("token"), &secret("second"), at(2)).unwrap(), 2);
    assert_eq!(vault.rotate(&name("token"), &secret(CANARY), at(3)).unwrap(), 3);
    assert_eq!(vault.generation(), before + 3);
    drop(vault);

    let vault = world.open().unwrap();
    assert_eq!(value(&vault, "token"), CANARY);
    let info = SecretInfo { name: name("token"), version: 3, created: at(1), rotated: at(3) };
    assert_eq!(vault.list(), [info]);
    for file in fs::read_dir(world.path()).unwrap() {
        let path = file.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
        let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
        assert!(!text.contains(CANARY), "{}", path.display());
    }
    vault.rm(&name("token")).unwrap();
    assert!(matches!(vault.get(&name("token")), Err(VaultFault::Unknown(_))));
    assert!(matches!(vault.rm(&name("token")), Err(VaultFault::Unknown(_))));
    assert!(matches!(vault.rotate(&name("token"), &secret("x"), at(4)), Err(VaultFault::Unknown(_))));
}

#[test]
fn any_changed_byte_keeps_the_vault_shut() {
    let world = World::new().filled();
    let good = fs::read(world.secrets()).unwrap();
    for position in 0..good.len() {
        for flip in [0x01, 0x20] {
            let mut bad = good.clone();
            bad[position] ^= flip;
            fs::write(world.secrets(), &bad).unwrap();
            assert!(world.open().is_err(), "byte {position} may be changed by {flip:#x}");
        }
    }
    fs::write(world.secrets(), &good[..good.len() - 1]).unwrap();
    assert!(matches!(world.open(), Err(VaultFault::Tampered { .. })), "cut short");
    fs::write(world.secrets(), [&good[..], b"\n"].concat()).unwrap();
    assert!(matches!(world.open(), Err(VaultFault::Tampered { .. })), "made longer");
    fs::write(world.secrets(), &good).unwrap();
    assert_eq!(value(&world.open().unwrap(), "token"), CANARY);
}

#[test]
fn a_secret_cannot_take_the_place_of_another() {
    let world = World::new();
    let vault = world.open().unwrap();
    vault.set(&name("one"), &secret("first"), at(1)).unwrap();
    vault.set(&name("two"), &secret("second"), at(1)).unwrap();
    // Past the seal, as somebody could who holds the document but not the value's label.
    vault
        .change(|document, _| {
            let one = document.secrets.get(&name("one")).cloned().unwrap();
            document.secrets.insert(name("two"), one);
            document.secrets.get_mut(&name("one")).unwrap().version = 2;
            Ok(())
        })
        .unwrap();
    assert!(matches!(vault.get(&name("two")), Err(VaultFault::Sealed(_))), "another name");
    assert!(matches!(vault.get(&name("one")), Err(VaultFault::Sealed(_))), "another version");
}

#[test]
fn no_key_or_the_wrong_key_does_not_start() {
    let world = World::new().filled();
    let key = fs::read(world.key_file()).unwrap();
    assert!(matches!(world.open_with(KEY), Err(VaultFault::WrongKey { .. })));
    fs::remove_file(world.key_file()).unwrap();
    assert!(matches!(world.load(), Err(KeyFault::Missing { .. })));
    assert!(!world.key_file().exists(), "no key may be made where one was lost");

    fs::write(world.key_file(), &key).unwrap();
    fs::set_permissions(world.key_file(), fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(world.load(), Err(KeyFault::Mode { mode: 0o640, .. })));
    fs::set_permissions(world.key_file(), fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(world.secrets(), fs::Permissions::from_mode(0o604)).unwrap();
    assert!(matches!(world.open(), Err(VaultFault::Mode { mode: 0o604, .. })));
}

#[test]
fn a_key_file_that_was_named_is_never_made() {
    let world = World::new();
    let named = world.path().join("elsewhere.key");
    let source = KeySource::File(named.clone());
    assert!(matches!(source.load(world.path()), Err(KeyFault::Absent { .. })));
    assert!(!named.exists(), "a place that is not mounted yet must not get a key of its own");
    fs::write(&named, KEY).unwrap();
    fs::set_permissions(&named, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(source.load(world.path()).is_ok());
}

#[test]
fn lost_secrets_are_not_replaced_by_an_empty_vault() {
    let world = World::new().filled();
    fs::write(world.path().join("log.pub"), "key").unwrap();
    fs::remove_file(world.secrets()).unwrap();
    assert!(matches!(world.open(), Err(VaultFault::Gone { .. })));
    fs::remove_file(world.key_file()).unwrap();
    assert!(matches!(world.load(), Err(KeyFault::Missing { .. })));
}

#[test]
fn another_tenant_does_not_open() {
    let world = World::new().filled();
    let other = TenantId::new("other").unwrap();
    let opened = Vault::open(world.path(), world.load().unwrap(), other, at(0));
    assert!(matches!(opened, Err(VaultFault::OtherTenant { .. })));
}

#[test]
fn a_newer_format_is_named() {
    let world = World::new().filled();
    let text = fs::read_to_string(world.secrets()).unwrap();
    fs::write(world.secrets(), text.replacen("\"format\": 1", "\"format\": 2, \"more\": 1", 1)).unwrap();
    assert!(matches!(world.open(), Err(VaultFault::Newer { found: 2, known: 1, .. })));
}

#[test]
fn keys_are_32_bytes_and_nothing_is_padded() {
    let read = |given: &[u8]| master::parse(given).map(|bytes| bytes.to_vec());
    let bytes: Vec<u8> = (0..32_u8).map(|byte| byte.wrapping_mul(37).wrapping_add(5)).collect();
    let hex = bytes.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
    for good in [bytes.clone(), format!(" {hex}\n").into_bytes(), hex.to_uppercase().into_bytes()] {
        assert_eq!(read(&good).unwrap(), bytes);
    }
    assert!(read(KEY.as_bytes()).is_ok() && read(format!("{KEY}\n").as_bytes()).is_ok());
    assert!(read(KEY.trim_end_matches('=').as_bytes()).is_ok());
    let short = &bytes[..31];
    let long = [&bytes[..], b"x"].concat();
    for bad in [
        &b""[..],
        b"short",
        short,
        &long,
        b"0123456789abcdef0123456789abcdef", // half a key in hexadecimal
        b"correct horse battery staple ....",
        &hex.as_bytes()[..62],
        b"MDEyMzQ1Njc4OWFiY2RlZg==",
    ] {
        assert!(matches!(read(bad), Err(KeyFault::Shape)), "{bad:?}");
    }
    assert!(matches!(read(&[7; 32]), Err(KeyFault::Weak)));
}

#[test]
fn a_key_comes_from_a_command_or_a_value() {
    let world = World::new();
    let command = |words: &[&str]| KeySource::Command(words.iter().map(|word| (*word).to_owned()).collect());
    world.open_with(KEY).unwrap().set(&name("token"), &secret(CANARY), at(1)).unwrap();

    let key = command(&["printf", KEY]).load(world.path()).unwrap();
    let vault = Vault::open(world.path(), key, TenantId::default_tenant(), at(2)).unwrap();
    assert_eq!(value(&vault, "token"), CANARY);

    assert!(matches!(command(&["false"]).load(world.path()), Err(KeyFault::CommandFailed { .. })));
    assert!(matches!(command(&["printf", "short"]).load(world.path()), Err(KeyFault::Shape)));
    assert!(matches!(command(&["yes"]).load(world.path()), Err(KeyFault::CommandFailed { .. })));
    assert!(matches!(command(&["/no/such/program"]).load(world.path()), Err(KeyFault::Command { .. })));
    assert!(matches!(command(&[]).load(world.path()), Err(KeyFault::CommandFailed { .. })));
}

#[test]
fn rotating_the_master_key_rewraps_everything() {
    let world = World::new().filled();
    let vault = world.open().unwrap();
    let signer = vault.audit_signer().unwrap().public;
    let (old_key, old_secrets) = (fs::read(world.key_file()).unwrap(), fs::read(world.secrets()).unwrap());
    vault.rotate_master(MasterKey::generate().unwrap()).unwrap();
    assert_eq!(value(&vault, "token"), CANARY);
    assert_ne!(fs::read(world.key_file()).unwrap(), old_key);
    assert_eq!(mode(&world.key_file()), 0o600);
    vault.set(&name("later"), &secret("v"), at(5)).unwrap();

    let again = world.open().unwrap();
    assert_eq!((value(&again, "token"), value(&again, "later")), (CANARY.to_owned(), "v".to_owned()));
    assert_eq!(again.audit_signer().unwrap().public, signer);
    let opened = fs::write(world.key_file(), &old_key).map(|()| world.open()).unwrap();
    assert!(matches!(opened, Err(VaultFault::WrongKey { .. })), "the old key opens nothing new");
    fs::write(world.secrets(), &old_secrets).unwrap();
    assert!(world.open().is_ok(), "a backup opens with the key of its time");
}

#[test]
fn a_rotation_that_was_cut_off_leaves_a_vault_that_opens() {
    let world = World::new().filled();
    let next = world.path().join("master.key.next");
    let old_key = fs::read(world.key_file()).unwrap();

    // Cut off before the secrets were written: the new key lies there, unused.
    fs::write(&next, format!("{KEY}\n")).unwrap();
    fs::set_permissions(&next, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(value(&world.open().unwrap(), "token"), CANARY);
    assert!(!next.exists());
    assert_eq!(fs::read(world.key_file()).unwrap(), old_key);

    // Cut off after it: the secrets are under the new key, the old one still has the name.
    world.open().unwrap().rotate_master(MasterKey::generate().unwrap()).unwrap();
    fs::rename(world.key_file(), &next).unwrap();
    fs::write(world.key_file(), &old_key).unwrap();
    fs::set_permissions(world.key_file(), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(value(&world.open().unwrap(), "token"), CANARY);
    assert!(!next.exists());
    assert_ne!(fs::read(world.key_file()).unwrap(), old_key);
}

#[test]
fn a_generated_key_is_never_lost() {
    let world = World::new();
    let homeless = Vault::open(world.path(), MasterKey::generate().unwrap(), TenantId::default_tenant(), at(0));
    assert!(matches!(homeless, Err(VaultFault::NoHome)));
    let vault = world.open_with(KEY).unwrap();
    assert!(matches!(vault.rotate_master(MasterKey::generate().unwrap()), Err(VaultFault::NoHome)));
    assert!(world.open_with(KEY).is_ok());
}

#[test]
fn a_reload_takes_over_what_another_process_wrote() {
    let world = World::new().filled();
    let gateway = world.open().unwrap();
    let command = world.open().unwrap();
    assert!(!gateway.reload().unwrap());

    let before = gateway.generation();
    command.set(&name("token"), &secret("new"), at(9)).unwrap();
    command.rotate_master(MasterKey::generate().unwrap()).unwrap();
    assert!(gateway.reload().unwrap());
    assert_eq!(value(&gateway, "token"), "new");
    assert_ne!(gateway.generation(), before);

    let good = fs::read_to_string(world.secrets()).unwrap();
    fs::write(world.secrets(), good.replacen("\"version\": 2", "\"version\": 3", 1)).unwrap();
    assert!(gateway.reload().is_err());
    assert_eq!(value(&gateway, "token"), "new", "the last good state stays");
}

#[test]
fn the_log_signer_stays_the_same_and_signs() {
    use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
    let world = World::new();
    let signer = world.open().unwrap().audit_signer().unwrap();
    let signature = (signer.sign)(b"checkpoint");
    UnparsedPublicKey::new(&ED25519, signer.public).verify(b"checkpoint", &signature).unwrap();
    assert!(UnparsedPublicKey::new(&ED25519, signer.public).verify(b"other", &signature).is_err());
    assert_eq!(world.open().unwrap().audit_signer().unwrap().public, signer.public);
    assert_ne!(World::new().open().unwrap().audit_signer().unwrap().public, signer.public);
}

#[test]
fn fernet_secrets_come_over_all_or_none() {
    // The key and token of the Fernet specification (`verify.json`).
    const SPEC_KEY: &str = "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4=";
    const SPEC_TOKEN: &str =
        "gAAAAAAdwJ6wAAECAwQFBgcICQoLDA0ODy021cpGVWKZ_eEwCGM4BLLF_5CV9dOPmrhuVUPgJobwOz7JcbmrR64jVmpU4IwqDA==";
    let world = World::new();
    let vault = world.open().unwrap();
    let own = fernet::Fernet::generate_key();
    let token = fernet::Fernet::new(&own).unwrap().encrypt(CANARY.as_bytes());

    assert_eq!(vault.import_fernet(&secret(SPEC_KEY), &[(name("spec"), SPEC_TOKEN.to_owned())], at(1)).unwrap(), []);
    assert_eq!(value(&vault, "spec"), "hello");
    let both = [(name("good"), token.clone()), (name("bad"), SPEC_TOKEN.to_owned())];
    let fault = vault.import_fernet(&secret(&own), &both, at(2)).unwrap_err();
    assert!(matches!(&fault, VaultFault::FernetToken(bad) if bad.as_str() == "bad"));
    assert!(!texts(&fault).contains(CANARY) && !texts(&fault).contains(&own));
    assert_eq!(vault.list().len(), 1, "nothing of a failed import stays");
    assert_eq!(vault.import_fernet(&secret(&own), &both[..1], at(3)).unwrap(), []);
    assert_eq!(value(&vault, "good"), CANARY);
    let over = [(name("spec"), token.clone()), (name("new"), token.clone())];
    assert_eq!(vault.import_fernet(&secret(&own), &over, at(4)).unwrap(), [name("spec")]);
    assert_eq!(value(&vault, "spec"), CANARY);
    let twice = [(name("more"), token.clone()), (name("more"), token)];
    let fault = vault.import_fernet(&secret(&own), &twice, at(4)).unwrap_err();
    assert!(matches!(&fault, VaultFault::Twice(name) if name.as_str() == "more"));
    assert_eq!(vault.list().len(), 3, "nothing of a failed import stays");
    assert!(matches!(vault.import_fernet(&secret("short"), &both, at(4)), Err(VaultFault::FernetKey)));
}

#[test]
fn values_have_bounds() {
    let vault = World::new();
    let vault = vault.open().unwrap();
    assert!(matches!(vault.set(&name("x"), &secret(""), at(1)), Err(VaultFault::Size(_))));
    assert!(matches!(vault.set(&name("x"), &secret(&"v".repeat(65_537)), at(1)), Err(VaultFault::Size(_))));
    assert!(vault.list().is_empty());
}

#[test]
fn nothing_public_prints_a_secret_or_a_key() {
    let world = World::new().filled();
    let key_text = fs::read_to_string(world.key_file()).unwrap();
    let vault = world.open().unwrap();
    let key = world.load().unwrap();
    let printed = format!(
        "{vault:?} {key:?} {:?} {:?} {:?} {:?} {} {:?}",
        MasterKey::generate().unwrap(),
        KeySource::Value(secret(CANARY)),
        vault.list(),
        vault.audit_signer().unwrap(),
        vault.get(&name("token")).unwrap(),
        vault.get(&name("token")).unwrap(),
    );
    let bytes = format!("{:?}", key.bytes.as_ref());
    assert!(!printed.contains(CANARY) && !printed.contains(key_text.trim()) && !printed.contains(&bytes));

    let faults = [
        world.open_with(KEY).map(drop).unwrap_err(),
        world.open_with(CANARY).map(drop).unwrap_err(),
        vault.set(&name("x"), &secret(&CANARY.repeat(9_999)), at(1)).unwrap_err(),
        vault.rotate(&name("absent"), &secret(CANARY), at(1)).unwrap_err(),
    ];
    for fault in faults {
        let text = texts(&fault);
        assert!(!text.contains(CANARY) && !text.contains(KEY), "{text}");
    }
}

#[test]
fn reading_while_writing_yields_one_of_the_values() {
    let world = World::new().filled();
    let vault = world.open().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..20 {
                vault.set(&name("token"), &secret(&format!("{CANARY}-{round}")), at(round)).unwrap();
            }
        });
        for _ in 0..2_000 {
            assert!(value(&vault, "token").starts_with(CANARY));
        }
    });
    assert_eq!(value(&vault, "token"), format!("{CANARY}-19"));
}

#[test]
fn keys_of_texts_outlive_a_new_master_key_and_open_under_their_label_alone() {
    let world = World::new().filled();
    let vault = world.open().unwrap();
    let sealed = vault.make_text_key(b"monday").unwrap();
    let other = vault.make_text_key(b"monday").unwrap();
    assert_ne!(sealed, other, "each is drawn anew");
    let text = vault.open_text_key(b"monday", &sealed).unwrap().seal(b"call 1", CANARY.as_bytes()).unwrap();
    assert!(!text.windows(CANARY.len()).any(|window| window == CANARY.as_bytes()));

    vault.rotate_master(MasterKey::generate().unwrap()).unwrap();
    drop(vault);
    let vault = world.open().unwrap();
    let key = vault.open_text_key(b"monday", &sealed).unwrap();
    assert_eq!(key.open(b"call 1", &text).unwrap(), CANARY.as_bytes());
    assert_eq!(key.open(b"call 2", &text), None);
    assert_eq!(vault.open_text_key(b"monday", &other).unwrap().open(b"call 1", &text), None, "another key");
    assert!(matches!(vault.open_text_key(b"tuesday", &sealed), Err(VaultFault::TextKey)));
    assert!(matches!(vault.open_text_key(b"monday", &sealed[1..]), Err(VaultFault::TextKey)));
    assert!(!format!("{key:?}").contains(CANARY));
}
