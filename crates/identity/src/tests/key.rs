//! API keys, anonymous callers, and where credentials stand in a request.

use super::world::{World, agent, at};
use crate::key::{Shape, recognise};
use crate::{
    AdminRole, ApiKey, AuthFault, Credential, CredentialId, Identity, KeyHolder, KeyKind, KeyRow, Principal, Refused,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use std::collections::HashSet;
use vocab::Timestamp;

fn row(key: &ApiKey, holder: KeyHolder) -> KeyRow {
    KeyRow { id: key.id().clone(), hash: key.hash(), holder, expires: None, revoked: false }
}

fn agent_key(world: &World, name: &str) -> ApiKey {
    let key = ApiKey::generate(KeyKind::Agent).unwrap();
    world.registry.insert_key(row(&key, KeyHolder::Agent(agent(name))));
    key
}

fn ask(identity: &Identity, text: &str, now: Timestamp) -> Result<Principal, AuthFault> {
    identity.try_authenticate(Credential::Bearer(text), now).expect("keys never wait").map_err(|refused| refused.fault)
}

/// What everybody may see of a key, and its secret.
fn halves(text: &str) -> (&str, &str) {
    text.split_at(13)
}

#[test]
fn keys_are_random_and_have_their_shape() {
    let mut seen = HashSet::new();
    for kind in [KeyKind::Agent, KeyKind::Admin] {
        for _ in 0..200 {
            let key = ApiKey::generate(kind).unwrap();
            let text = key.text().expose();
            let prefix = if kind == KeyKind::Agent { "dwk_" } else { "dwa_" };
            assert!(text.starts_with(&format!("{prefix}{}_", key.id())) && text.len() == 56, "{}", text.len());
            assert!(matches!(recognise(text), Shape::Key { id, .. } if id == key.id().as_str()));
            assert!(!format!("{key:?}").contains(halves(text).1));
            assert!(seen.insert(text.clone()));
        }
    }
}

#[tokio::test]
async fn a_key_lets_its_agent_in() {
    let world = World::start().await;
    let identity = world.identity();
    let key = agent_key(&world, "ci");
    let text = key.text().expose();
    for credential in [Credential::Bearer(text), Credential::ApiKey(text)] {
        let principal = identity.authenticate(credential, at(0)).await.unwrap();
        assert_eq!(principal.id().agent, agent("ci"));
        assert_eq!(principal.id().user, None);
        assert_eq!(principal.credential_id(), &CredentialId::Key(key.id().clone()));
        assert_eq!(principal.roles().len(), 1);
        assert!(!format!("{principal:?} {credential:?}").contains(halves(text).1));
    }
    assert!(!format!("{:?}", world.registry).contains(halves(text).1));
}

#[tokio::test]
async fn a_key_that_differs_anywhere_is_unknown() {
    let world = World::start().await;
    let identity = world.identity();
    let key = agent_key(&world, "ci");
    let text = key.text().expose().clone();
    for position in 0..text.len() {
        let mut bytes = text.clone().into_bytes();
        bytes[position] = if bytes[position] == b'a' { b'b' } else { b'a' };
        let bad = String::from_utf8(bytes).unwrap();
        assert!(ask(&identity, &bad, at(0)).is_err(), "character {position}");
    }
    let longer = format!("{text}a");
    let (cut, _) = text.split_at(55);
    let (_, unprefixed) = text.split_at(4);
    for bad in ["dwk_", "dwk__", "dwk_abc", &longer, cut, unprefixed] {
        assert!(matches!(ask(&identity, bad, at(0)), Err(AuthFault::Malformed(_))), "{bad}");
    }
    let stranger = ApiKey::generate(KeyKind::Agent).unwrap();
    assert_eq!(ask(&identity, stranger.text().expose(), at(0)).unwrap_err(), AuthFault::UnknownKey);
    // A right id with another key's secret.
    let mixed = format!("{}{}", halves(&text).0, halves(stranger.text().expose()).1);
    assert_eq!(ask(&identity, &mixed, at(0)).unwrap_err(), AuthFault::UnknownKey);
}

#[tokio::test]
async fn revoking_and_expiring_act_on_the_next_message() {
    let world = World::start().await;
    let identity = world.identity();
    let (one, two) = (agent_key(&world, "ci"), agent_key(&world, "ci"));
    let principal = ask(&identity, one.text().expose(), at(0)).unwrap();
    assert_eq!(principal.still_valid(&identity, at(0)), Ok(()));

    assert!(world.registry.revoke_key(one.id()));
    assert_eq!(ask(&identity, one.text().expose(), at(0)).unwrap_err(), AuthFault::Revoked);
    assert_eq!(principal.still_valid(&identity, at(0)), Err(AuthFault::Revoked));
    assert_eq!(principal.still_valid(&world.identity(), at(0)), Err(AuthFault::Revoked));

    let other = ask(&identity, two.text().expose(), at(0)).unwrap();
    assert!(world.registry.expire_key(two.id(), at(10)));
    assert!(ask(&identity, two.text().expose(), at(9)).is_ok());
    assert_eq!(ask(&identity, two.text().expose(), at(10)).unwrap_err(), AuthFault::Expired);
    assert_eq!(other.still_valid(&identity, at(10)), Err(AuthFault::Expired), "streams opened before see it too");
    assert!(!world.registry.revoke_key(&"zzzzzzzz".parse().unwrap()));

    world.registry.replace([], [], []);
    assert_eq!(other.still_valid(&identity, at(0)), Err(AuthFault::Revoked), "a key that is gone is revoked");
}

#[tokio::test]
async fn unknown_and_disabled_agents_are_forbidden() {
    let world = World::start().await;
    let identity = world.identity();
    let key = agent_key(&world, "stranger");
    let fault = ask(&identity, key.text().expose(), at(0)).unwrap_err();
    assert_eq!(fault, AuthFault::UnregisteredAgent(agent("stranger")));
    assert_eq!((fault.status().as_u16(), fault.challenge()), (403, None));

    let key = agent_key(&world, "ci");
    let principal = ask(&identity, key.text().expose(), at(0)).unwrap();
    world.registry.disable_agent(&agent("ci"));
    assert_eq!(ask(&identity, key.text().expose(), at(0)).unwrap_err(), AuthFault::DisabledAgent(agent("ci")));
    assert!(principal.still_valid(&identity, at(0)).is_err());
}

#[tokio::test]
async fn who_shows_the_secret_of_a_key_is_known_though_not_let_in() {
    let world = World::start().await;
    let identity = world.identity();
    let refused = |text: &str| identity.try_authenticate(Credential::Bearer(text), at(10)).unwrap().unwrap_err();
    let known = |text: &str| refused(text).proven.map(|proven| (proven.id.agent.clone(), proven.credential.clone()));
    for change in ["revoked", "expired", "disabled", "stranger"] {
        let name = if change == "stranger" { "stranger" } else { "ci" };
        let key = agent_key(&world, name);
        match change {
            "revoked" => assert!(world.registry.revoke_key(key.id())),
            "expired" => assert!(world.registry.expire_key(key.id(), at(5))),
            "disabled" => world.registry.disable_agent(&agent(name)),
            _ => {}
        }
        let text = key.text().expose();
        assert_eq!(known(text), Some((agent(name), CredentialId::Key(key.id().clone()))), "{change}");
        // Whoever knows the public part alone is nobody.
        let (public, _) = halves(text);
        let guess = format!("{public}{}", "A".repeat(43));
        assert_eq!(refused(&guess), Refused::from(AuthFault::UnknownKey), "{change}");
        world.registry.enable_agent(&agent(name));
    }
    let admin = ApiKey::generate(KeyKind::Admin).unwrap();
    world.registry.insert_key(row(&admin, KeyHolder::Admin(AdminRole::Owner)));
    assert_eq!(known(admin.text().expose()), None, "it is no agent's");
}

#[tokio::test]
async fn each_kind_of_key_opens_its_own_door() {
    let world = World::start().await;
    let identity = world.identity();
    let admin = ApiKey::generate(KeyKind::Admin).unwrap();
    world.registry.insert_key(row(&admin, KeyHolder::Admin(AdminRole::Operator)));
    let key = agent_key(&world, "ci");
    let bearer = |key: &ApiKey| key.text().expose().clone();

    let administrator = identity.authenticate_admin(Credential::Bearer(&bearer(&admin)), at(0)).unwrap();
    assert_eq!((administrator.key(), administrator.role()), (admin.id(), AdminRole::Operator));
    assert!(AdminRole::Viewer < AdminRole::Operator && AdminRole::Operator < AdminRole::Owner);
    assert_eq!(ask(&identity, &bearer(&admin), at(0)).unwrap_err(), AuthFault::UnknownKey);
    let wrong = identity.authenticate_admin(Credential::Bearer(&bearer(&key)), at(0));
    assert_eq!(wrong.unwrap_err(), AuthFault::UnknownKey);
    assert_eq!(identity.authenticate_admin(Credential::None, at(0)).unwrap_err(), AuthFault::Missing);

    // A row that says otherwise does not turn one kind into the other.
    world.registry.insert_key(row(&key, KeyHolder::Admin(AdminRole::Owner)));
    assert!(ask(&identity, &bearer(&key), at(0)).is_err());
    assert!(identity.authenticate_admin(Credential::Bearer(&bearer(&key)), at(0)).is_err());

    world.registry.revoke_key(admin.id());
    let revoked = identity.authenticate_admin(Credential::Bearer(&bearer(&admin)), at(0));
    assert_eq!(revoked.unwrap_err(), AuthFault::Revoked);
}

#[tokio::test]
async fn nobody_comes_in_unless_the_configuration_says_so() {
    let mut world = World::start().await;
    let none = |identity: &Identity| {
        identity.try_authenticate(Credential::None, at(0)).unwrap().map_err(|Refused { fault, proven }| {
            assert_eq!(proven, None, "nobody has shown anything");
            fault
        })
    };
    let fault = none(&world.identity()).unwrap_err();
    assert_eq!((fault.status().as_u16(), fault.challenge()), (401, None));

    world.settings.anonymous = Some(agent("other"));
    let open = world.identity();
    let principal = none(&open).unwrap();
    assert_eq!((principal.id().agent.as_str(), principal.credential_id()), ("other", &CredentialId::Anonymous));
    assert!(ask(&open, "dwk_wrong", at(0)).is_err(), "a wrong credential is not no credential");
    world.settings.anonymous = None;
    assert_eq!(principal.still_valid(&world.identity(), at(0)), Err(AuthFault::Missing));
}

#[test]
fn a_request_has_one_credential() {
    let authorization = HeaderName::from_static("authorization");
    let api_key = HeaderName::from_static("x-api-key");
    let read = |headers: &[(&HeaderName, &[u8])]| {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        Credential::of(&map).map(|credential| match credential {
            Credential::None => "none".to_owned(),
            Credential::Bearer(text) => format!("bearer {text}"),
            Credential::ApiKey(text) => format!("key {text}"),
        })
    };
    let auth = |value: &'static str| read(&[(&authorization, value.as_bytes())]);
    assert_eq!(read(&[]).unwrap(), "none");
    assert_eq!(auth("Bearer abc").unwrap(), "bearer abc");
    assert_eq!(auth("bEARER  abc ").unwrap(), "bearer abc");
    assert_eq!(read(&[(&api_key, b"abc")]).unwrap(), "key abc");
    for bad in ["Basic YTpi", "Bearer", "abc", ""] {
        assert!(matches!(auth(bad), Err(AuthFault::Malformed(_))), "{bad:?}");
    }
    for bad in [
        &[(&authorization, &b"Bearer a"[..]), (&authorization, b"Bearer b")][..],
        &[(&authorization, b"Bearer a"), (&api_key, b"b")],
        &[(&api_key, b"a"), (&api_key, b"a")],
        &[(&authorization, b"Bearer \xff")],
    ] {
        assert!(matches!(read(bad), Err(AuthFault::Malformed(_))));
    }
}

#[tokio::test]
async fn public_messages_do_not_tell_wrong_from_revoked() {
    let faults =
        [AuthFault::UnknownKey, AuthFault::Revoked, AuthFault::Expired, AuthFault::Issuer, AuthFault::Algorithm];
    for fault in faults {
        assert_eq!(fault.public_message(), AuthFault::UnknownKey.public_message());
        assert_eq!((fault.status().as_u16(), fault.challenge()), (401, Some("error=\"invalid_token\"")));
    }
}
