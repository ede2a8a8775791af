//! Tokens: what is accepted, what is not, and how often an issuer is asked.

use super::world::{AUDIENCE, HANG, NOW, Signer, World, agent, ask, at, encode, file};
use crate::{Algorithm, AuthFault, Credential, CredentialId, Identity, JwksSource, Reread};
use base64::Engine;
use serde_json::{Value, json};
use std::{future::poll_fn, task::Poll};
use vocab::{IssuerName, UserId};

async fn published(signer: &Signer) -> (World, Identity) {
    let world = World::start().await;
    world.publish(&[signer.jwk("k1")]);
    let identity = world.identity();
    assert!(identity.warm(at(0)).await.is_empty());
    (world, identity)
}

#[tokio::test]
async fn a_signed_token_becomes_a_principal() {
    for signer in [Signer::rsa(), Signer::ec(), Signer::ed()] {
        let (world, identity) = published(&signer).await;
        let principal = ask(&identity, &signer.token("k1", &world.claims()), 0).await.unwrap();
        assert_eq!(principal.id().agent, agent("ci"));
        assert_eq!(principal.id().user, Some(UserId::new("ann@example.com").unwrap()));
        let roles: Vec<&str> = principal.roles().iter().map(AsRef::as_ref).collect();
        assert_eq!(roles, ["developer", "ops"], "those of the registration and of the token, each once");
        assert_eq!(principal.scopes().iter().map(|scope| &**scope).collect::<Vec<_>>(), ["read", "write"]);
        assert_eq!(principal.environments().len(), 1);
        assert_eq!(principal.expires(), Some(at(630)), "the leeway is part of it");
        assert_eq!(principal.generation(), identity.generation());
    }
}

#[tokio::test]
async fn claims_that_do_not_hold_are_refused() {
    let signer = Signer::ec();
    let (world, identity) = published(&signer).await;
    let issuer = IssuerName::new(&world.issuer).unwrap();
    let claim = |name: &str| AuthFault::Claim(name.to_owned());
    let audience = AuthFault::Audience(issuer.clone());
    for (changes, fault) in [
        (json!({"aud": "https://other.example.com"}), audience.clone()),
        (json!({"aud": ["a", "b"]}), audience.clone()),
        (json!({"aud": [AUDIENCE, 7]}), audience.clone()),
        (json!({"aud": null}), audience.clone()),
        (json!({"aud": format!("{AUDIENCE}/")}), audience.clone()),
        (json!({"iss": "https://evil.example.com"}), AuthFault::Issuer),
        (json!({"iss": format!("{}/", world.issuer)}), AuthFault::Issuer),
        (json!({"iss": [world.issuer]}), AuthFault::Issuer),
        (json!({"iss": null}), AuthFault::Issuer),
        (json!({"exp": NOW - 30}), AuthFault::Expired),
        (json!({"exp": null}), claim("exp")),
        (json!({"exp": "tomorrow"}), claim("exp")),
        (json!({"exp": -1}), claim("exp")),
        (json!({"exp": 1e300}), claim("exp")),
        (json!({"nbf": NOW + 31}), AuthFault::NotYetValid),
        (json!({"nbf": "now"}), claim("nbf")),
        (json!({"azp": null}), claim("azp")),
        (json!({"azp": 7}), claim("azp")),
        (json!({"azp": "../etc"}), claim("azp")),
        (json!({"sub": ["ann"]}), claim("sub")),
        (json!({"sub": "a\nb"}), claim("sub")),
        (json!({"groups": ["ops", 7]}), claim("groups")),
        (json!({"groups": {"ops": true}}), claim("groups")),
        (json!({"azp": "stranger"}), AuthFault::UnregisteredAgent(agent("stranger"))),
    ] {
        let token = signer.token("k1", &world.claims_with(&changes));
        assert_eq!(ask(&identity, &token, 0).await.unwrap_err(), fault, "{changes}");
    }
    for changes in [
        json!({"aud": ["x", AUDIENCE]}),
        json!({"exp": NOW - 29}),
        json!({"exp": 1_795_000_000.5}),
        json!({"nbf": null}),
        json!({"nbf": NOW + 30}),
        json!({"sub": null}),
        json!({"groups": "ops dev"}),
    ] {
        assert!(ask(&identity, &signer.token("k1", &world.claims_with(&changes)), 0).await.is_ok(), "{changes}");
    }
}

#[tokio::test]
async fn a_token_that_was_signed_for_us_names_its_agent_though_it_lets_nobody_in() {
    let (signer, thief) = (Signer::rsa(), Signer::rsa());
    let (world, identity) = published(&signer).await;
    let refused = async |token: &str, offset: i64| {
        let refused = identity.authenticate(Credential::Bearer(token), at(offset)).await.unwrap_err();
        let by = |text| CredentialId::Token(Identity::token_digest(text).unwrap());
        if let Some(proven) = &refused.proven {
            assert_eq!(proven.credential, by(token));
        }
        (refused.fault.code(), refused.proven.map(|proven| proven.id.agent.to_string()))
    };
    let known = |code, name: &str| (code, Some(name.to_owned()));
    let token = |changes: Value| signer.token("k1", &world.claims_with(&changes));

    let stranger = token(json!({"azp": "stranger"}));
    assert_eq!(refused(&stranger, 0).await, known("unregistered_agent", "stranger"));
    assert_eq!(refused(&stranger, 1).await, known("unregistered_agent", "stranger"), "also where it is known already");
    assert_eq!(refused(&stranger, 630).await.0, "unregistered_agent");

    let (ours, late) = (token(json!({})), token(json!({"jti": "late"})));
    assert_eq!(refused(&late, 630).await, known("expired", "ci"));
    assert!(ask(&identity, &ours, 0).await.is_ok());
    world.registry.disable_agent(&agent("ci"));
    assert_eq!(refused(&ours, 1).await, known("disabled_agent", "ci"));
    world.registry.enable_agent(&agent("ci"));
    world.registry.revoke_token(Identity::token_digest(&ours).unwrap(), at(630), at(0));
    assert_eq!(refused(&ours, 2).await, known("revoked", "ci"));
    assert_eq!(refused(&ours, 630).await, known("expired", "ci"));

    // What is not shown names nobody.
    assert_eq!(refused(&thief.token("k1", &world.claims()), 0).await, ("signature", None));
    assert_eq!(refused(&token(json!({"aud": "another"})), 0).await, ("audience", None));
    assert_eq!(refused(&token(json!({"azp": "someone", "jti": "late"})), 630).await, ("expired", None));
}

#[tokio::test]
async fn headers_decide_nothing() {
    let (rsa, thief) = (Signer::rsa(), Signer::ec());
    let (world, identity) = published(&rsa).await;
    let claims = world.claims().to_string();
    let refused = |header: Value| rsa.raw(&header.to_string(), &claims);
    let issuer = || IssuerName::new(&world.issuer).unwrap();

    let unsigned = format!("{}.{}.", encode(br#"{"alg":"none"}"#), encode(claims.as_bytes()));
    assert!(matches!(ask(&identity, &unsigned, 0).await, Err(AuthFault::Malformed(_))));
    for algorithm in ["none", "None", "HS256", "HS512", "RS1", ""] {
        let token = refused(json!({"alg": algorithm, "kid": "k1"}));
        assert_eq!(ask(&identity, &token, 0).await.unwrap_err(), AuthFault::Algorithm, "{algorithm}");
    }
    // The public key as the secret of an HMAC: the classic confusion.
    let modulus =
        base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(rsa.jwk("k1")["n"].as_str().unwrap()).unwrap();
    let signed = format!("{}.{}", encode(br#"{"alg":"HS256","kid":"k1"}"#), encode(claims.as_bytes()));
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &modulus);
    let confused = format!("{signed}.{}", encode(aws_lc_rs::hmac::sign(&key, signed.as_bytes()).as_ref()));
    assert_eq!(ask(&identity, &confused, 0).await.unwrap_err(), AuthFault::Algorithm);

    // A key brought along, an algorithm of another kind of key, a foreign signature.
    let own = json!({"alg": "ES256", "kid": "k1", "jwk": thief.jwk("k1"), "jku": "http://127.0.0.1/keys"});
    let brought = thief.raw(&own.to_string(), &claims);
    assert_eq!(ask(&identity, &brought, 0).await.unwrap_err(), AuthFault::UnknownSigner(issuer()));
    let foreign = Signer::rsa().token("k1", &world.claims());
    assert_eq!(ask(&identity, &foreign, 0).await.unwrap_err(), AuthFault::Signature(issuer()));
    let padded = refused(json!({"alg": "PS256", "kid": "k1"}));
    assert_eq!(ask(&identity, &padded, 0).await.unwrap_err(), AuthFault::Signature(issuer()));

    let critical = refused(json!({"alg": "RS256", "kid": "k1", "crit": ["b64"], "b64": false}));
    assert!(matches!(ask(&identity, &critical, 0).await, Err(AuthFault::Malformed(_))));
    for header in [r#"{"alg":"RS256","alg":"none","kid":"k1"}"#, r#"{"kid":"k1"}"#, "[]", r#"{"alg":7}"#, "{"] {
        assert!(matches!(ask(&identity, &rsa.raw(header, &claims), 0).await, Err(AuthFault::Malformed(_))), "{header}");
    }
    let twice = claims.replacen('{', r#"{"aud":"https://evil.example.com","#, 1);
    let token = rsa.raw(r#"{"alg":"RS256","kid":"k1"}"#, &twice);
    assert!(matches!(ask(&identity, &token, 0).await, Err(AuthFault::Malformed(_))), "two audiences");
}

#[tokio::test]
async fn types_are_checked() {
    let signer = Signer::ed();
    let (world, identity) = published(&signer).await;
    let claims = world.claims().to_string();
    for (kind, good) in [
        (json!("at+jwt"), true),
        (json!("application/AT+JWT"), true),
        (json!("JWT"), true),
        (json!(null), true),
        (json!("dpop+jwt"), false),
        (json!("logout+jwt"), false),
    ] {
        let header = json!({"alg": "EdDSA", "kid": "k1", "typ": kind});
        let answer = ask(&identity, &signer.raw(&header.to_string(), &claims), 0).await;
        assert_eq!(answer.is_ok(), good, "{kind}");
        assert!(good || matches!(answer, Err(AuthFault::Type(_))));
    }
}

#[tokio::test]
async fn mangled_tokens_are_refused_quickly() {
    let signer = Signer::ec();
    let (world, identity) = published(&signer).await;
    let good = signer.token("k1", &world.claims());
    assert!(ask(&identity, &good, 0).await.is_ok());
    let asked = world.site.asked();
    for position in 0..good.len() {
        let mut bytes = good.clone().into_bytes();
        bytes[position] = if bytes[position] == b'A' { b'B' } else { b'A' };
        let bad = String::from_utf8(bytes).unwrap();
        assert!(ask(&identity, &bad, 0).await.is_err(), "character {position}");
    }
    let (cut, _) = good.split_at(good.len() - 1);
    let long = format!("{good}{}", "A".repeat(20_000));
    for bad in ["", "x", "a.b", "..", "a.b.c.d", cut, &format!("{good}="), &format!("{good} "), &long] {
        assert!(ask(&identity, bad, 0).await.is_err(), "{bad:?}");
    }
    assert_eq!(world.site.asked(), asked, "none of them made us ask the issuer");
}

#[tokio::test]
async fn a_token_is_good_many_times_until_it_expires() {
    let signer = Signer::ec();
    let (world, identity) = published(&signer).await;
    let token = signer.token("k1", &world.claims());
    let credential = Credential::Bearer(&token);
    for offset in [0, 1, 300, 629] {
        let principal = ask(&identity, &token, offset).await.unwrap();
        assert_eq!(principal.id().agent, agent("ci"));
    }
    assert!(matches!(identity.try_authenticate(credential, at(629)), Some(Ok(_))), "known tokens need no waiting");
    let principal = ask(&identity, &token, 629).await.unwrap();
    assert_eq!(ask(&identity, &token, 630).await.unwrap_err(), AuthFault::Expired);
    assert_eq!(principal.still_valid(&identity, at(629)), Ok(()));
    assert_eq!(principal.still_valid(&identity, at(630)), Err(AuthFault::Expired));
}

#[tokio::test]
async fn a_revoked_token_is_out_at_once_and_cannot_be_rewritten() {
    let signer = Signer::ec();
    let (world, identity) = published(&signer).await;
    let token = signer.token("k1", &world.claims());
    let other = signer.token("k1", &world.claims_with(&json!({"azp": "other"})));
    let principal = ask(&identity, &token, 0).await.unwrap();
    let digest = Identity::token_digest(&token).unwrap();
    assert_eq!(principal.credential_id(), &CredentialId::Token(digest));

    world.registry.revoke_token(digest, at(630), at(0));
    assert_eq!(ask(&identity, &token, 1).await.unwrap_err(), AuthFault::Revoked);
    assert_eq!(principal.still_valid(&identity, at(1)), Err(AuthFault::Revoked));
    assert!(ask(&identity, &other, 1).await.is_ok(), "others keep working");

    // The same claims under a second valid signature are the same token.
    let header = json!({"alg": "ES256", "kid": "k1", "typ": "at+jwt"});
    let resigned = signer.raw(&header.to_string(), &world.claims().to_string());
    assert_ne!(resigned, token);
    assert_eq!(ask(&identity, &resigned, 1).await.unwrap_err(), AuthFault::Revoked);
}

#[tokio::test]
async fn a_disabled_agent_is_out_at_once() {
    let signer = Signer::ed();
    let (mut world, identity) = published(&signer).await;
    let token = signer.token("k1", &world.claims());
    let principal = ask(&identity, &token, 0).await.unwrap();
    world.registry.disable_agent(&agent("ci"));
    let off = AuthFault::DisabledAgent(agent("ci"));
    assert_eq!(ask(&identity, &token, 1).await.unwrap_err(), off);
    assert_eq!(principal.still_valid(&identity, at(1)), Err(off.clone()));
    world.registry.enable_agent(&agent("ci"));
    assert!(ask(&identity, &token, 1).await.is_ok());

    world.settings.agents.get_mut(&agent("ci")).unwrap().disabled = true;
    assert_eq!(principal.still_valid(&world.identity(), at(1)), Err(off));
    world.settings.agents.remove(&agent("ci"));
    assert_eq!(principal.still_valid(&world.identity(), at(1)), Err(AuthFault::UnregisteredAgent(agent("ci"))));
}

#[tokio::test]
async fn that_a_token_is_good_no_longer_is_found_out_once() {
    let signer = Signer::ec();
    let (mut world, identity) = published(&signer).await;
    let token = signer.token("k1", &world.claims());
    let credential = Credential::Bearer(&token);
    ask(&identity, &token, 0).await.unwrap();
    // By then the keys are old: whoever looks at the token itself asks for them first.
    let later = at(1_000_000);

    let next = world.identity();
    assert!(next.try_authenticate(credential, later).is_none(), "nothing is known of it after a reload");
    assert_eq!(ask(&next, &token, 630).await.unwrap_err(), AuthFault::Expired);
    assert!(
        matches!(next.try_authenticate(credential, later), Some(Err(refused)) if refused.fault == AuthFault::Expired)
    );
    let guess = signer.token("k1", &world.claims_with(&json!({"azp": "other"})));
    assert_eq!(ask(&next, &guess, 630).await.unwrap_err(), AuthFault::Expired);
    assert!(next.try_authenticate(Credential::Bearer(&guess), later).is_none(), "of guesses nothing is kept");

    // A switch may be turned back.
    world.registry.disable_agent(&agent("ci"));
    let next = world.identity();
    assert_eq!(ask(&next, &token, 1).await.unwrap_err(), AuthFault::DisabledAgent(agent("ci")));
    assert_eq!(next.known_tokens(), 1, "its signature is looked at once");
    world.registry.enable_agent(&agent("ci"));
    assert!(ask(&next, &token, 1).await.is_ok());

    let removed = world.settings.agents.remove(&agent("ci")).unwrap();
    let next = world.identity();
    let unregistered = AuthFault::UnregisteredAgent(agent("ci"));
    assert_eq!(ask(&next, &token, 1).await.unwrap_err(), unregistered);
    assert!(matches!(next.try_authenticate(credential, later), Some(Err(refused)) if refused.fault == unregistered));
    world.settings.agents.insert(agent("ci"), removed);
    assert!(ask(&world.identity(), &token, 1).await.is_ok(), "the next reload looks again");
}

#[tokio::test]
async fn a_signature_that_fits_no_longer_is_looked_at_once_for_each_set_of_keys() {
    let (old, new) = (Signer::ec(), Signer::ec());
    let (world, identity) = published(&old).await;
    let claims = world.claims_with(&json!({"exp": NOW + 6000}));
    let token = old.token("k1", &claims);
    ask(&identity, &token, 0).await.unwrap();
    // Another key under the same id, which somebody's unknown one makes known.
    world.publish(&[new.jwk("k1")]);
    ask(&identity, &new.token("k2", &claims), 40).await.unwrap_err();
    let wrong = AuthFault::Signature(IssuerName::new(&world.issuer).unwrap());
    let before = identity.signatures();
    for _ in 0..5 {
        assert_eq!(ask(&identity, &token, 41).await.unwrap_err(), wrong);
    }
    assert_eq!(identity.signatures(), before + 1);
    // Whoever guesses is counted, and nothing is kept of that.
    let forged = Signer::ec().token("k1", &claims);
    for _ in 0..5 {
        assert_eq!(ask(&identity, &forged, 41).await.unwrap_err(), wrong);
    }
    assert_eq!(identity.signatures(), before + 6);
    // The keys are asked for in their time, whoever comes, and the one of before is good again.
    world.publish(&[old.jwk("k1")]);
    assert!(ask(&identity, &token, 650).await.is_ok());
}

#[tokio::test]
async fn what_was_signed_for_an_agent_that_nobody_registered_is_looked_at_once() {
    let signer = Signer::ec();
    let (world, identity) = published(&signer).await;
    let token = signer.token("k1", &world.claims_with(&json!({"azp": "stranger"})));
    for _ in 0..5 {
        let fault = ask(&identity, &token, 0).await.unwrap_err();
        assert_eq!(fault, AuthFault::UnregisteredAgent(agent("stranger")));
    }
    assert_eq!(identity.signatures(), 1);
}

#[tokio::test]
async fn a_reload_reaches_principals_that_are_in() {
    let signer = Signer::ed();
    let (mut world, identity) = published(&signer).await;
    let principal = ask(&identity, &signer.token("k1", &world.claims()), 0).await.unwrap();
    world.settings.agents.get_mut(&agent("ci")).unwrap().roles.clear();
    let next = world.identity();
    let renewed = next.renew(&principal, at(1)).unwrap();
    assert_eq!(renewed.generation(), next.generation());
    assert_eq!(renewed.roles().len(), 2, "what the token grants stays");
    assert_eq!(renewed.environments(), principal.environments());

    world.settings.issuers[0].roles = None;
    assert_eq!(principal.still_valid(&world.identity(), at(1)), Err(AuthFault::Issuer));
    world.settings.issuers.clear();
    assert_eq!(principal.still_valid(&world.identity(), at(1)), Err(AuthFault::Issuer));
}

#[tokio::test]
async fn rotation_is_followed_and_unknown_keys_do_not_flood_the_issuer() {
    let (old, new) = (Signer::ec(), Signer::ec());
    let (world, identity) = published(&old).await;
    let (old_token, new_token) = (old.token("k1", &world.claims()), new.token("k2", &world.claims()));
    let stays = ask(&identity, &old_token, 1).await.unwrap();
    let asked = world.site.asked();

    for number in 0..50 {
        let token = new.token(&format!("guess-{number}"), &world.claims());
        assert!(matches!(ask(&identity, &token, 1).await, Err(AuthFault::UnknownSigner(_))));
    }
    assert_eq!(world.site.asked(), asked, "asked 1 s ago, so nobody asks again");

    world.publish(&[new.jwk("k2")]);
    assert!(identity.try_authenticate(Credential::Bearer(&new_token), at(40)).is_none(), "this one has to wait");
    assert!(ask(&identity, &new_token, 40).await.is_ok());
    assert_eq!(world.site.asked(), asked + 2, "metadata and keys, once");
    for number in 0..50 {
        let token = new.token(&format!("guess-{number}"), &world.claims());
        assert!(ask(&identity, &token, 45).await.is_err());
    }
    assert_eq!(world.site.asked(), asked + 2);
    assert!(ask(&identity, &old_token, 45).await.is_err(), "a withdrawn key takes its verified tokens along");
    let gone = AuthFault::UnknownSigner(IssuerName::new(&world.issuer).unwrap());
    assert_eq!(stays.still_valid(&identity, at(45)), Err(gone), "and the streams that were opened with them");
}

#[tokio::test]
async fn a_key_taken_out_of_its_file_takes_its_tokens_and_streams_along() {
    let (kept, stolen) = (Signer::ec(), Signer::ec());
    let mut world = World::start().await;
    let (file, source) = file(&json!({"keys": [kept.jwk("k1"), stolen.jwk("k2")]}));
    let write = |text: &str| std::fs::write(file.path(), text).unwrap();
    world.settings.issuers[0].jwks = source;
    let identity = world.identity();
    let issuer = IssuerName::new(&world.issuer).unwrap();
    assert!(identity.reread(at(0)).is_empty(), "there were no other keys before");
    let (good, bad) = (kept.token("k1", &world.claims()), stolen.token("k2", &world.claims()));
    let (stays, goes) = (ask(&identity, &good, 0).await.unwrap(), ask(&identity, &bad, 0).await.unwrap());

    // In other words, the same key.
    let mut reordered: Vec<_> = kept.jwk("k1").as_object().unwrap().clone().into_iter().collect();
    reordered.reverse();
    let members: Vec<_> = reordered.iter().map(|(name, value)| format!("{}: {value}", json!(name))).collect();
    write(&format!("{{\"keys\": [{{{}}}]}}", members.join(", ")));
    assert_eq!(identity.reread(at(1)), [(issuer.clone(), Reread::Changed)]);
    assert!(identity.reread(at(1)).is_empty());
    let gone = AuthFault::UnknownSigner(issuer.clone());
    assert_eq!(ask(&identity, &bad, 1).await.unwrap_err(), gone);
    for identity in [&identity, &world.identity()] {
        assert_eq!(goes.still_valid(identity, at(1)), Err(gone.clone()));
        assert_eq!(stays.still_valid(identity, at(1)), Ok(()));
    }
    assert!(ask(&identity, &good, 1).await.is_ok());

    for unusable in ["{", r#"{"keys": [{"kty": "weird"}]}"#] {
        write(unusable);
        assert!(matches!(identity.reread(at(2)).as_slice(), [(_, Reread::Unusable(_))]), "{unusable}");
        let again = world.identity().reread(at(2));
        assert!(matches!(again.as_slice(), [(_, Reread::StillUnusable(_))]), "this was told: {unusable}");
        assert_eq!(stays.still_valid(&identity, at(2)), Ok(()));
    }
    // Whoever empties the file means it.
    write(r#"{"keys": []}"#);
    assert_eq!(identity.reread(at(3)), [(issuer.clone(), Reread::Changed)]);
    assert_eq!(stays.still_valid(&identity, at(3)), Err(gone.clone()));
    assert_eq!(ask(&identity, &good, 3).await.unwrap_err(), gone);
    // A fault that comes again is told again, and that it is over.
    for (text, news) in [("{", None), (r#"{"keys": []}"#, Some(Reread::Usable)), ("{", None)] {
        write(text);
        let told = identity.reread(at(4)).pop().unwrap().1;
        assert!(news.as_ref().map_or(matches!(told, Reread::Unusable(_)), |news| *news == told), "{text}: {told:?}");
    }
    assert!(matches!(identity.reread(at(4)).as_slice(), [(_, Reread::StillUnusable(_))]));
}

#[tokio::test]
async fn a_crowd_asks_once() {
    let signer = Signer::ec();
    let world = World::start().await;
    world.publish(&[signer.jwk("k1")]);
    let identity = world.identity();
    let token = signer.token("k1", &world.claims());
    let one = || ask(&identity, &token, 0);
    let (a, b, c, d) = tokio::join!(one(), one(), one(), one());
    assert!(a.is_ok() && b.is_ok() && c.is_ok() && d.is_ok());
    assert_eq!(world.site.asked(), 2);
}

#[tokio::test]
async fn a_slow_issuer_holds_up_one_call_not_all() {
    let signer = Signer::ec();
    let (world, identity) = published(&signer).await;
    let token = signer.token("k1", &world.claims_with(&json!({"exp": NOW + 9_000})));
    let other = signer.token("k1", &world.claims_with(&json!({"exp": NOW + 9_000, "azp": "other"})));
    assert!(ask(&identity, &token, 0).await.is_ok());
    world.site.put("/keys", HANG, "");

    let mut first = Box::pin(ask(&identity, &token, 700));
    let waits = poll_fn(|context| Poll::Ready(first.as_mut().poll(context).is_pending())).await;
    assert!(waits, "somebody has to ask for newer keys");
    for text in [&token, &other] {
        let answer = identity.try_authenticate(Credential::Bearer(text), at(700));
        assert!(matches!(answer, Some(Ok(_))), "the others go on with what there is");
    }
}

#[tokio::test]
async fn keys_stay_while_the_issuer_is_down_but_not_for_ever() {
    let signer = Signer::ec();
    let (world, identity) = published(&signer).await;
    let token = signer.token("k1", &world.claims_with(&json!({"exp": NOW + 200_000})));
    world.site.put("/keys", 500, "");
    assert!(ask(&identity, &token, 3_600).await.is_ok());
    let asked = world.site.asked();
    assert!(asked > 2, "old keys are asked for again");
    assert!(ask(&identity, &token, 3_601).await.is_ok());
    assert_eq!(world.site.asked(), asked);
    assert!(matches!(ask(&identity, &token, 86_400).await, Err(AuthFault::Unavailable(_))));
}

#[tokio::test]
async fn no_keys_means_unavailable_and_recovers() {
    let signer = Signer::ec();
    let world = World::start().await;
    let identity = world.identity();
    let token = signer.token("k1", &world.claims());
    assert_eq!(identity.warm(at(0)).await.len(), 1);
    let fault = ask(&identity, &token, 1).await.unwrap_err();
    assert!(matches!(&fault, AuthFault::Unavailable(_)) && fault.status() == 503);
    for bad in [
        json!({"keys": []}).to_string(),
        json!({"keys": [{"kty": "oct", "kid": "k1", "k": "c2VjcmV0"}]}).to_string(),
        "not json".to_owned(),
        format!("{{\"keys\": [], \"pad\": \"{}\"}}", "x".repeat(300_000)),
    ] {
        world.site.put("/keys", 200, &bad);
        let identity = world.identity();
        assert!(matches!(ask(&identity, &token, 10).await, Err(AuthFault::Unavailable(_))));
    }
    world.publish(&[json!({"kty": "weird"}), json!(7), signer.jwk("k1")]);
    assert!(ask(&identity, &token, 60).await.is_ok(), "one unreadable key does not cost the others");
}

#[tokio::test]
async fn metadata_of_another_issuer_is_not_believed() {
    let signer = Signer::ec();
    let world = World::start().await;
    world.publish(&[signer.jwk("k1")]);
    let keys = format!("{}/keys", world.issuer);
    let place = "/.well-known/openid-configuration";
    world.site.put(place, 200, &json!({"issuer": "https://evil.example.com", "jwks_uri": keys}));
    let token = signer.token("k1", &world.claims());
    assert!(matches!(ask(&world.identity(), &token, 0).await, Err(AuthFault::Unavailable(_))));

    world.site.put(place, 200, &json!({"issuer": world.issuer, "jwks_uri": "file:///etc/passwd"}));
    assert!(matches!(ask(&world.identity(), &token, 10).await, Err(AuthFault::Unavailable(_))));

    world.site.put(place, 404, "");
    world.site.put("/.well-known/oauth-authorization-server", 200, &json!({"issuer": world.issuer, "jwks_uri": keys}));
    assert!(ask(&world.identity(), &token, 20).await.is_ok(), "OAuth metadata does where OpenID's is missing");
}

#[tokio::test]
async fn keys_may_come_from_an_address_or_a_file() {
    let signer = Signer::rsa();
    let mut world = World::start().await;
    world.publish(&[signer.jwk("k1")]);
    let token = signer.token("k1", &world.claims());
    world.settings.issuers[0].jwks = JwksSource::Url(format!("{}/keys", world.issuer).parse().unwrap());
    assert!(ask(&world.identity(), &token, 0).await.is_ok());
    assert_eq!(world.site.asked(), 1);

    let (_file, source) = file(&json!({"keys": [signer.jwk("k1")]}));
    world.settings.issuers[0].jwks = source;
    assert!(ask(&world.identity(), &token, 0).await.is_ok());
    assert_eq!(world.site.asked(), 1);
}

#[tokio::test]
async fn keys_serve_only_what_they_are_for() {
    let signer = Signer::rsa();
    let mut world = World::start().await;
    let mut encryption = signer.jwk("k1");
    encryption["use"] = json!("enc");
    let mut other = signer.jwk("k1");
    other["alg"] = json!("PS256");
    let mut wraps = signer.jwk("k1");
    wraps["key_ops"] = json!(["wrapKey"]);
    for jwk in [encryption, other, wraps] {
        let (_file, source) = file(&json!({"keys": [jwk, Signer::ec().jwk("k9")]}));
        world.settings.issuers[0].jwks = source;
        let answer = ask(&world.identity(), &signer.token("k1", &world.claims()), 0).await;
        assert!(matches!(answer, Err(AuthFault::UnknownSigner(_))));
    }
    world.settings.issuers[0].algorithms = vec![Algorithm::Es256];
    let answer = ask(&world.identity(), &signer.token("k1", &world.claims()), 0).await;
    assert_eq!(answer.unwrap_err(), AuthFault::Algorithm);
}

#[tokio::test]
async fn a_token_without_key_id_needs_the_only_fitting_key() {
    let (one, two) = (Signer::ec(), Signer::ec());
    let (world, identity) = published(&one).await;
    let token = one.raw(r#"{"alg":"ES256"}"#, &world.claims().to_string());
    assert!(ask(&identity, &token, 0).await.is_ok());
    world.publish(&[one.jwk("k1"), two.jwk("k2")]);
    identity.warm(at(60)).await;
    assert!(matches!(ask(&identity, &token, 61).await, Err(AuthFault::UnknownSigner(_))));
}

#[tokio::test]
async fn two_issuers_do_not_sign_for_each_other() {
    let (one, two) = (Signer::ec(), Signer::ec());
    let (mut world, other) = (World::start().await, World::start().await);
    world.publish(&[one.jwk("k")]);
    other.publish(&[two.jwk("k")]);
    world.settings.issuers.extend(other.settings.issuers.clone());
    let identity = world.identity();
    assert!(identity.warm(at(0)).await.is_empty());
    assert!(ask(&identity, &one.token("k", &world.claims()), 0).await.is_ok());
    assert!(ask(&identity, &two.token("k", &other.claims()), 0).await.is_ok());
    assert!(matches!(ask(&identity, &one.token("k", &other.claims()), 0).await, Err(AuthFault::Signature(_))));
    assert!(matches!(ask(&identity, &two.token("k", &world.claims()), 0).await, Err(AuthFault::Signature(_))));
}

#[tokio::test]
async fn the_cache_of_verified_tokens_is_bounded() {
    let signer = Signer::ed();
    let (world, identity) = published(&signer).await;
    for number in 0..9_000 {
        let token = signer.token("k1", &world.claims_with(&json!({ "jti": number })));
        assert!(ask(&identity, &token, 0).await.is_ok());
    }
    assert!(identity.known_tokens() <= 8_192);
}

#[tokio::test]
async fn nothing_prints_a_token() {
    let signer = Signer::ed();
    let (world, identity) = published(&signer).await;
    let token = signer.token("k1", &world.claims_with(&json!({"secret": "canary-77aa"})));
    let signature = token.rsplit('.').next().unwrap();
    let principal = ask(&identity, &token, 0).await.unwrap();
    let fault = ask(&identity, &Signer::ed().token("k1", &world.claims()), 0).await.unwrap_err();
    let printed = format!(
        "{principal:?} {} {identity:?} {:?} {:?} {fault} {fault:?} {}",
        principal.credential_id(),
        world.registry,
        Credential::Bearer(&token),
        fault.public_message(),
    );
    assert!(!printed.contains(&token) && !printed.contains(signature) && !printed.contains("canary-77aa"));
}
