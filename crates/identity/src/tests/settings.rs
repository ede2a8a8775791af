//! Settings that would open the door too far do not build.

use super::world::{World, agent, path};
use crate::{Algorithm, Identity, JwksCache, JwksSource, Settings, SettingsFault};
use std::{sync::Arc, time::Duration};

fn faults(world: &World, change: impl FnOnce(&mut Settings)) -> Vec<SettingsFault> {
    let mut settings = world.settings.clone();
    change(&mut settings);
    let egress = Arc::new(egress::Egress::new(egress::Settings::default()).unwrap());
    Identity::new(settings, Arc::default(), Arc::new(JwksCache::new(egress))).err().unwrap_or_default()
}

#[tokio::test]
async fn an_issuer_without_audience_does_not_start() {
    let world = World::start().await;
    let name = world.settings.issuers[0].url.clone();
    for audiences in [vec![], vec![String::new()], vec!["good".to_owned(), " ".to_owned()]] {
        let found = faults(&world, |settings| settings.issuers[0].audiences = audiences);
        assert_eq!(found, [SettingsFault::NoAudience(name.clone())]);
    }
}

#[tokio::test]
async fn every_fault_is_named_at_once() {
    let world = World::start().await;
    let name = world.settings.issuers[0].url.clone();
    let found = faults(&world, |settings| {
        let issuer = &mut settings.issuers[0];
        issuer.audiences.clear();
        issuer.algorithms.clear();
        issuer.token_types.clear();
        issuer.leeway = Duration::from_secs(601);
        issuer.internal = false;
        settings.anonymous = Some(agent("nobody"));
    });
    assert_eq!(
        found,
        [
            SettingsFault::NoAudience(name.clone()),
            SettingsFault::NoAlgorithm(name.clone()),
            SettingsFault::NoTokenType(name.clone()),
            SettingsFault::Leeway(name.clone()),
            SettingsFault::PlainHttp(name.clone()),
            SettingsFault::Anonymous(agent("nobody")),
        ]
    );
    let found = faults(&world, |settings| settings.issuers.push(settings.issuers[0].clone()));
    assert_eq!(found, [SettingsFault::Duplicate(name.clone())]);
    let found = faults(&world, |settings| {
        settings.issuers[0].jwks = JwksSource::Url("ftp://idp.example.com/keys".parse().unwrap());
    });
    assert_eq!(found, [SettingsFault::Address(name)]);
    assert!(faults(&world, |settings| settings.issuers[0].groups = Some(path("claim:groups"))).is_empty());
}

#[test]
fn weak_algorithms_cannot_be_named() {
    for weak in ["none", "HS256", "HS384", "HS512", "RS1", "rs256"] {
        assert!(weak.parse::<Algorithm>().is_err(), "{weak}");
    }
    for good in Algorithm::DEFAULT {
        assert_eq!(good.as_str().parse(), Ok(good));
    }
}
