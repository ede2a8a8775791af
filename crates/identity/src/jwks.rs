//! The signing keys of issuers: where they are found and how often they are asked for.
//!
//! An issuer is asked at most once per 30 seconds, whatever the tokens say. Keys stay usable for a day while the
//! issuer cannot be reached. A file is read, too, whenever the operator says so.

use crate::{
    JwksSource,
    keyset::{KeySet, KeySetFault},
    settings::IssuerSetting,
};
use arc_swap::{ArcSwap, ArcSwapOption};
use egress::Egress;
use http::StatusCode;
use serde::Deserialize;
use std::{
    collections::HashMap,
    io::Read,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};
use url::Url;
use vocab::{Digest, IssuerName, Timestamp};

/// Least time between two requests for the same keys.
const BETWEEN: Duration = Duration::from_secs(30);
/// The same while there are no keys at all.
const BETWEEN_WITHOUT_KEYS: Duration = Duration::from_secs(5);
/// Keys older than this are asked for again, so that a withdrawn key does not live on.
const FRESH: Duration = Duration::from_mins(10);
/// Keys older than this are not used.
const USABLE: Duration = Duration::from_hours(24);
/// Of each request.
const DEADLINE: Duration = Duration::from_secs(5);
/// Largest metadata or key set that is read, in bytes.
const LARGEST: usize = 256 * 1024;

/// The key sets of all issuers. Outlives snapshots, so that a reload neither forgets keys nor asks more often.
#[derive(Debug)]
pub struct JwksCache {
    egress: Arc<Egress>,
    issuers: ArcSwap<HashMap<Place, Arc<IssuerKeys>>>,
}

/// What makes two configured issuers share their keys.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Place {
    issuer: IssuerName,
    source: JwksSource,
    internal: bool,
}

impl JwksCache {
    /// A cache that asks through `egress`.
    pub fn new(egress: Arc<Egress>) -> Self {
        Self { egress, issuers: ArcSwap::default() }
    }

    /// The keys of these issuers; what no other snapshot uses is forgotten.
    pub(crate) fn keys_of(&self, issuers: &[IssuerSetting]) -> Vec<Arc<IssuerKeys>> {
        let places: Vec<Place> = issuers
            .iter()
            .map(|issuer| Place { issuer: issuer.url.clone(), source: issuer.jwks.clone(), internal: issuer.internal })
            .collect();
        self.issuers.rcu(|known| {
            let mut known: HashMap<_, _> = known
                .iter()
                .filter(|(place, keys)| Arc::strong_count(keys) > 1 || places.contains(place))
                .map(|(place, keys)| (place.clone(), Arc::clone(keys)))
                .collect();
            for place in &places {
                known.entry(place.clone()).or_insert_with(|| Arc::new(IssuerKeys::new(place.clone())));
            }
            known
        });
        let known = self.issuers.load();
        places.iter().filter_map(|place| known.get(place).cloned()).collect()
    }

    /// Asks for the keys unless somebody just did. A failure is logged and leaves the keys as they are.
    ///
    /// Who needs them waits for a request that is under way; who could go on with old keys does not.
    pub(crate) async fn refresh(&self, keys: &IssuerKeys, need: Need, now: Timestamp) {
        let _turn = match (keys.turn.try_lock(), need) {
            (Ok(turn), _) => turn,
            (Err(_), Need::Newer) => return,
            (Err(_), Need::Missing) => keys.turn.lock().await,
        };
        if !keys.may_ask(now) {
            return;
        }
        keys.asked.store(now.as_micros(), Ordering::Release);
        let taken = match &keys.place.source {
            JwksSource::File(path) => keys.reread(path, now),
            JwksSource::Url(url) => self.ask(url, keys, now).await,
            JwksSource::Discovery => match self.discover(&keys.place).await {
                Ok(url) => self.ask(&url, keys, now).await,
                Err(fault) => Err(fault),
            },
        };
        if let Err(fault) = taken {
            tracing::warn!(issuer = %keys.place.issuer, fault = %Chain(&fault), "cannot read the issuer's keys");
        }
    }

    /// Takes over the keys at `url`. Whether they are others than before.
    async fn ask(&self, url: &Url, keys: &IssuerKeys, now: Timestamp) -> Result<bool, JwksFault> {
        let set = KeySet::parse(&self.fetch(url, keys.place.internal).await?)?;
        // Whoever empties a file means it. An issuer that publishes nothing is out of order.
        if set.is_empty() {
            return Err(KeySetFault::NoKey.into());
        }
        Ok(keys.adopt(set, now))
    }

    /// Finds the address of the keys: `OpenID` Connect Discovery 1.0 §4, else RFC 8414 §3.
    async fn discover(&self, place: &Place) -> Result<Url, JwksFault> {
        let issuer = Url::parse(place.issuer.as_str()).map_err(|_| JwksFault::Address)?;
        let path = issuer.path().trim_end_matches('/').to_owned();
        let mut openid = issuer.clone();
        openid.set_path(&format!("{path}/.well-known/openid-configuration"));
        let mut oauth = issuer;
        oauth.set_path(&format!("/.well-known/oauth-authorization-server{path}"));

        let bytes = match self.fetch(&openid, place.internal).await {
            Err(JwksFault::Status(_)) => self.fetch(&oauth, place.internal).await?,
            other => other?,
        };
        let metadata: Metadata = serde_json::from_slice(&bytes).map_err(JwksFault::Metadata)?;
        // SECURITY: metadata of another issuer would let that one sign for this one.
        if metadata.issuer != place.issuer.as_str() {
            return Err(JwksFault::OtherIssuer);
        }
        let keys = Url::parse(&metadata.jwks_uri).map_err(|_| JwksFault::Address)?;
        match keys.scheme() {
            "https" => Ok(keys),
            "http" if place.internal => Ok(keys),
            _ => Err(JwksFault::Address),
        }
    }

    /// The one place where this crate talks to the world.
    async fn fetch(&self, url: &Url, internal: bool) -> Result<Vec<u8>, JwksFault> {
        let (status, body) = self
            .egress
            .fetch(url, internal, LARGEST, DEADLINE)
            .await
            .map_err(|cause| JwksFault::Fetch(Box::new(cause)))?;
        match status {
            StatusCode::OK => Ok(body.to_vec()),
            other => Err(JwksFault::Status(other)),
        }
    }
}

/// Why the keys are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// The one that is needed is not there.
    Missing,
    /// They are old.
    Newer,
}

#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    jwks_uri: String,
}

fn read_file(path: &Path) -> Result<Vec<u8>, JwksFault> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(JwksFault::File)?;
    file.take(LARGEST as u64 + 1).read_to_end(&mut bytes).map_err(JwksFault::File)?;
    if bytes.len() > LARGEST { Err(JwksFault::TooLarge) } else { Ok(bytes) }
}

/// Why no key of an issuer could be taken from this file, if that is so.
pub fn why_no_keys(path: &Path) -> Option<String> {
    let read = || Ok::<_, JwksFault>(KeySet::parse(&read_file(path)?)?);
    read().err().map(|fault| Chain(&fault).to_string())
}

/// What came of reading an issuer's file of keys again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reread {
    /// Other keys than before are in force.
    Changed,
    /// It can be used again, and holds the keys of before, or the first there are.
    Usable,
    /// It cannot be used, for this reason, which was not told yet: the keys of before are in force, if there were any.
    Unusable(String),
    /// It cannot be used for the reason that was told last.
    StillUnusable(String),
}

/// Why the keys of an issuer could not be had.
#[derive(Debug, thiserror::Error)]
enum JwksFault {
    #[error("the address of the issuer or of its keys is not usable")]
    Address,
    #[error("the request failed")]
    Fetch(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the answer has status {0}")]
    Status(StatusCode),
    #[error("the file cannot be read")]
    File(#[source] std::io::Error),
    #[error("the key set is larger than 256 KiB")]
    TooLarge,
    #[error("the issuer's metadata is not readable")]
    Metadata(#[source] serde_json::Error),
    #[error("the metadata found there is of another issuer")]
    OtherIssuer,
    #[error("the key set is not usable")]
    Set(#[from] KeySetFault),
}

/// An error with its causes, in one line.
struct Chain<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// The keys of one issuer and when they were asked for.
#[derive(Debug)]
pub(crate) struct IssuerKeys {
    place: Place,
    set: ArcSwapOption<KeySet>,
    /// Microseconds of the last request, successful or not.
    asked: AtomicI64,
    /// Microseconds of the last success.
    fetched: AtomicI64,
    /// Held by the one request under way. Who found no key queues for it; who finds a key never waits for it.
    turn: tokio::sync::Mutex<()>,
    /// Held from reading a file to taking it over: what was read before never comes after what was read later.
    reading: Mutex<()>,
    /// Why the file cannot be used, as it was told last.
    told: Mutex<Option<String>>,
}

impl IssuerKeys {
    fn new(place: Place) -> Self {
        Self {
            place,
            set: ArcSwapOption::empty(),
            asked: AtomicI64::new(i64::MIN),
            fetched: AtomicI64::new(i64::MIN),
            turn: tokio::sync::Mutex::new(()),
            reading: Mutex::new(()),
            told: Mutex::new(None),
        }
    }

    /// Reads the file of keys, if they are in one, however short ago that was. Nothing if it is as good as before.
    pub(crate) fn look_again(&self, now: Timestamp) -> Option<Reread> {
        let JwksSource::File(path) = &self.place.source else { return None };
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let fault = self.reread(path, now).map_err(|fault| Chain(&fault).to_string());
        let before = std::mem::replace(&mut *told, fault.as_ref().err().cloned());
        match fault {
            Ok(true) => Some(Reread::Changed),
            Ok(false) => before.map(|_| Reread::Usable),
            Err(fault) if before.as_ref() == Some(&fault) => Some(Reread::StillUnusable(fault)),
            Err(fault) => Some(Reread::Unusable(fault)),
        }
    }

    fn reread(&self, path: &Path, now: Timestamp) -> Result<bool, JwksFault> {
        let _reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let set = KeySet::parse(&read_file(path)?)?;
        Ok(self.adopt(set, now))
    }

    /// Takes these keys over. Whether there were others before.
    fn adopt(&self, mut set: KeySet, now: Timestamp) -> bool {
        self.fetched.store(now.as_micros(), Ordering::Release);
        let before = self.set.load();
        match before.as_deref() {
            Some(same) if same.is_same(&set) => return false,
            Some(other) => set.follow(other),
            None => {}
        }
        tracing::info!(issuer = %self.place.issuer, keys = set.len(), "took over the issuer's keys");
        self.set.store(Some(Arc::new(set)));
        before.is_some()
    }

    /// Whether a key that a token was verified with is still published, as far as is known.
    pub(crate) fn publishes(&self, signer: &Digest) -> bool {
        self.set.load().as_deref().is_some_and(|set| set.holds(signer))
    }

    /// The keys, if they are not too old to be used.
    pub(crate) fn current(&self, now: Timestamp) -> Option<Arc<KeySet>> {
        if is_older(&self.fetched, USABLE, now) { None } else { self.set.load_full() }
    }

    /// Whether the keys are old and may be asked for.
    pub(crate) fn wants_refresh(&self, now: Timestamp) -> bool {
        is_older(&self.fetched, FRESH, now) && self.may_ask(now)
    }

    /// Whether waiting could bring a key that is not there: the issuer may be asked, or is being asked.
    pub(crate) fn may_come(&self, now: Timestamp) -> bool {
        self.may_ask(now) || self.turn.try_lock().is_err()
    }

    /// Whether the issuer may be asked again.
    fn may_ask(&self, now: Timestamp) -> bool {
        let between = if self.set.load().is_some() { BETWEEN } else { BETWEEN_WITHOUT_KEYS };
        is_older(&self.asked, between, now)
    }
}

/// Whether what happened at `since` is `age` ago, or never happened.
fn is_older(since: &AtomicI64, age: Duration, now: Timestamp) -> bool {
    match since.load(Ordering::Acquire) {
        i64::MIN => true,
        since => Timestamp::from_micros(since).plus(age) <= now,
    }
}
