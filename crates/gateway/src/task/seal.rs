//! Ids of tasks as the aggregate shows them: sealed, with their server inside, for one principal.
//!
//! The same task has the same id each time: clients compare them. So the nonce is made of what is sealed (HMAC-SHA-256),
//! and no two texts share one. Under keys of this process, as everything is that is known of tasks.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hmac,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use vocab::{IssuerName, PrincipalId, ServerName, UserId};

/// What the ids are sealed for.
const LABEL: &[u8] = b"durward/task/1";
/// How all of them begin.
const PREFIX: &str = "durward-task-";
/// The longest id of a server that is sealed, in bytes. A header carries it.
const LONGEST: usize = 1024;

/// Seals and opens ids.
pub(crate) struct Seal {
    /// None where there were no random bytes: then no task is carried.
    keys: Option<(LessSafeKey, hmac::Key)>,
}

impl Default for Seal {
    fn default() -> Self {
        let (mut key, mut other) = ([0; 32], [0; 32]);
        let random = aws_lc_rs::rand::fill(&mut key).and_then(|()| aws_lc_rs::rand::fill(&mut other));
        let key = random.ok().and_then(|()| UnboundKey::new(&AES_256_GCM, &key).ok()).map(LessSafeKey::new);
        Self { keys: key.map(|key| (key, hmac::Key::new(hmac::HMAC_SHA256, &other))) }
    }
}

impl Seal {
    /// The id under which `owner` knows a task of a server.
    pub(crate) fn close(&self, owner: &PrincipalId, server: &ServerName, task: &str) -> Option<String> {
        let (key, other) = self.keys.as_ref().filter(|_| task.len() <= LONGEST)?;
        let bound = bound(owner);
        let mut text = [server.as_str().as_bytes(), b"/", task.as_bytes()].concat();
        let mut made = hmac::Context::with_key(other);
        made.update(&(bound.len() as u64).to_be_bytes());
        made.update(&bound);
        made.update(&text);
        let made = made.sign();
        let nonce = *made.as_ref().first_chunk::<NONCE_LEN>()?;
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(bound), &mut text).ok()?;
        Some(PREFIX.to_owned() + &URL_SAFE_NO_PAD.encode([nonce.as_slice(), &text].concat()))
    }

    /// The server and its id. `None` for what was not sealed here, or for somebody else.
    pub(crate) fn open(&self, owner: &PrincipalId, shown: &str) -> Option<(ServerName, String)> {
        let (key, _) = self.keys.as_ref()?;
        let sealed = shown.strip_prefix(PREFIX).filter(|sealed| sealed.len() <= 2 * LONGEST)?;
        let sealed = URL_SAFE_NO_PAD.decode(sealed).ok()?;
        let (nonce, text) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut text = text.to_vec();
        let text = key.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(bound(owner)), &mut text).ok()?;
        let (server, task) = std::str::from_utf8(text).ok()?.split_once('/')?;
        Some((ServerName::new(server).ok()?, task.to_owned()))
    }
}

/// All of who it is. No name holds a control character and none is empty: two principals never read alike.
fn bound(owner: &PrincipalId) -> Vec<u8> {
    let PrincipalId { agent, tenant, user, issuer } = owner;
    let (user, issuer) = (user.as_ref().map_or("", UserId::as_str), issuer.as_ref().map_or("", IssuerName::as_str));
    [LABEL, tenant.as_str().as_bytes(), agent.as_str().as_bytes(), user.as_bytes(), issuer.as_bytes()].join(&0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vocab::{AgentId, TenantId};

    fn principal(agent: &str) -> PrincipalId {
        PrincipalId {
            tenant: TenantId::default_tenant(),
            agent: AgentId::new(agent).unwrap(),
            user: None,
            issuer: None,
        }
    }

    #[test]
    fn principals_whose_names_run_together_are_told_apart() {
        let of = |user: Option<&str>, issuer: Option<&str>| PrincipalId {
            user: user.map(|user| UserId::new(user).unwrap()),
            issuer: issuer.map(|issuer| IssuerName::new(issuer).unwrap()),
            ..principal("alice")
        };
        let all = [
            of(None, None),
            of(Some("u"), None),
            of(None, Some("u")),
            of(Some("u"), Some("https://a")),
            of(Some("u"), Some("https://b")),
            of(Some("u of https://a"), None),
            of(Some("u of https://a"), Some("https://b")),
            of(Some("u"), Some("https://a of https://b")),
        ];
        let (seal, server) = (Seal::default(), ServerName::new("files").unwrap());
        for owner in &all {
            let shown = seal.close(owner, &server, "t").unwrap();
            for other in &all {
                assert_eq!(seal.open(other, &shown).is_some(), owner == other, "{owner} {other}");
            }
        }
    }

    #[test]
    fn an_id_opens_for_its_owner_alone_and_not_where_a_bit_is_another() {
        let (seal, alice, server) = (Seal::default(), principal("alice"), ServerName::new("files").unwrap());
        for task in ["t", "", "a/b", &"x".repeat(LONGEST), "ü \u{1f980}"] {
            let shown = seal.close(&alice, &server, task).unwrap();
            assert_eq!(seal.close(&alice, &server, task).as_ref(), Some(&shown), "the same each time");
            assert_eq!(seal.open(&alice, &shown), Some((server.clone(), task.to_owned())));
            assert_eq!(seal.open(&principal("bob"), &shown), None);
            assert_ne!(seal.close(&principal("bob"), &server, task).as_ref(), Some(&shown));
            assert_eq!(Seal::default().open(&alice, &shown), None);
            for at in PREFIX.len()..shown.len() {
                let mut other = shown.clone().into_bytes();
                other[at] = if other[at] == b'A' { b'B' } else { b'A' };
                assert_eq!(seal.open(&alice, std::str::from_utf8(&other).unwrap()), None, "{at}");
            }
        }
        assert_eq!(seal.close(&alice, &server, &"x".repeat(LONGEST + 1)), None);
        for strange in ["", "t", PREFIX, "durward-task-AAAA", &"A".repeat(10_000)] {
            assert_eq!(seal.open(&alice, strange), None);
        }
    }
}
