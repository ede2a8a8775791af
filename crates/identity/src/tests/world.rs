//! An identity provider we own: keys made here, published over HTTP on loopback, counted requests.

use crate::{
    AgentSetting, AuthFault, ClaimPath, Credential, Identity, IssuerSetting, JwksCache, JwksSource, Principal,
    Registry, Settings,
};
use aws_lc_rs::{
    rand::SystemRandom,
    rsa::{KeySize, PublicKeyComponents},
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use egress::Egress;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use vocab::{AgentId, EnvironmentName, IssuerName, RoleName, TenantId, Timestamp};

pub(super) const AUDIENCE: &str = "https://mcp.example.com";
pub(super) const NOW: i64 = 1_795_000_000;

pub(super) fn at(offset: i64) -> Timestamp {
    Timestamp::from_seconds(NOW + offset)
}

pub(super) fn agent(name: &str) -> AgentId {
    AgentId::new(name).unwrap()
}

pub(super) fn path(text: &str) -> ClaimPath {
    text.parse().unwrap()
}

/// A signing key of the provider.
pub(super) enum Signer {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

impl Signer {
    pub(super) fn rsa() -> Self {
        Self::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap())
    }

    pub(super) fn ec() -> Self {
        Self::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    pub(super) fn ed() -> Self {
        Self::Ed(Ed25519KeyPair::generate().unwrap())
    }

    pub(super) fn algorithm(&self) -> &'static str {
        match self {
            Self::Rsa(_) => "RS256",
            Self::Ec(_) => "ES256",
            Self::Ed(_) => "EdDSA",
        }
    }

    pub(super) fn jwk(&self, id: &str) -> Value {
        match self {
            Self::Rsa(pair) => {
                let PublicKeyComponents { n, e } = PublicKeyComponents::<Vec<u8>>::from(pair.public_key());
                json!({"kty": "RSA", "kid": id, "use": "sig", "n": encode(&n), "e": encode(&e)})
            }
            Self::Ec(pair) => {
                let point = pair.public_key().as_ref();
                json!({"kty": "EC", "crv": "P-256", "kid": id, "x": encode(&point[1..33]), "y": encode(&point[33..])})
            }
            Self::Ed(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "kid": id, "x": encode(pair.public_key().as_ref())})
            }
        }
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).unwrap();
                signature
            }
            Self::Ec(pair) => pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec(),
            Self::Ed(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }

    /// A token with this header and these claims, given as text so that they may be odd.
    pub(super) fn raw(&self, header: &str, claims: &str) -> String {
        let signed = format!("{}.{}", encode(header.as_bytes()), encode(claims.as_bytes()));
        let signature = encode(&self.sign(signed.as_bytes()));
        format!("{signed}.{signature}")
    }

    pub(super) fn token(&self, id: &str, claims: &Value) -> String {
        let header = json!({"alg": self.algorithm(), "kid": id, "typ": "at+jwt"});
        self.raw(&header.to_string(), &claims.to_string())
    }
}

pub(super) fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// In place of a status: the page never comes.
pub(super) const HANG: u16 = 0;

/// What the provider's web server answers, and how often it was asked.
#[derive(Default)]
pub(super) struct Site {
    pages: Mutex<HashMap<String, (u16, String)>>,
    asked: AtomicUsize,
}

impl Site {
    pub(super) fn put(&self, path: &str, status: u16, body: &(impl ToString + ?Sized)) {
        self.pages.lock().unwrap().insert(path.to_owned(), (status, body.to_string()));
    }

    pub(super) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    async fn serve(self: Arc<Self>, listener: TcpListener) {
        while let Ok((mut stream, _)) = listener.accept().await {
            let site = Arc::clone(&self);
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let path = String::from_utf8(head).unwrap().split(' ').nth(1).unwrap().to_owned();
                site.asked.fetch_add(1, Ordering::SeqCst);
                let page = site.pages.lock().unwrap().get(&path).cloned();
                let (status, body) = page.unwrap_or((404, String::new()));
                if status == HANG {
                    return std::future::pending().await;
                }
                let length = body.len();
                let answer =
                    format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
                // A client that has read enough hangs up.
                let _ = stream.write_all(answer.as_bytes()).await;
            });
        }
    }
}

/// A provider, and everything an identity is built from.
pub(super) struct World {
    pub(super) site: Arc<Site>,
    pub(super) issuer: String,
    pub(super) settings: Settings,
    pub(super) registry: Arc<Registry>,
    jwks: Arc<JwksCache>,
}

impl World {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let site = Arc::new(Site::default());
        tokio::spawn(Arc::clone(&site).serve(listener));

        let mut setting =
            IssuerSetting::new(IssuerName::new(&issuer).unwrap(), vec![AUDIENCE.to_owned()], path("claim:azp"));
        setting.internal = true;
        setting.user = Some(path("claim:sub"));
        setting.roles = Some(path("claim:groups"));
        setting.scopes = Some(path("claim:scope"));
        let ci = AgentSetting {
            roles: vec![RoleName::new("developer").unwrap()],
            environments: vec![EnvironmentName::new("dev").unwrap()],
            ..AgentSetting::default()
        };
        let settings = Settings {
            tenant: TenantId::default_tenant(),
            agents: BTreeMap::from([(agent("ci"), ci), (agent("other"), AgentSetting::default())]),
            issuers: vec![setting],
            anonymous: None,
        };
        let egress = Arc::new(Egress::new(egress::Settings::default()).unwrap());
        let world = Self { site, issuer, settings, registry: Arc::default(), jwks: Arc::new(JwksCache::new(egress)) };
        let metadata = json!({"issuer": world.issuer, "jwks_uri": format!("{}/keys", world.issuer)});
        world.site.put("/.well-known/openid-configuration", 200, &metadata);
        world
    }

    pub(super) fn publish(&self, keys: &[Value]) {
        self.site.put("/keys", 200, &json!({ "keys": keys }));
    }

    pub(super) fn identity(&self) -> Identity {
        Identity::new(self.settings.clone(), Arc::clone(&self.registry), Arc::clone(&self.jwks)).unwrap()
    }

    pub(super) fn claims(&self) -> Value {
        json!({
            "iss": self.issuer, "aud": AUDIENCE, "exp": NOW + 600, "nbf": NOW - 5, "azp": "ci", "sub": "ann@example.com",
            "groups": ["ops", "developer"], "scope": "read write",
        })
    }

    /// The usual claims with some changed; null takes one away.
    pub(super) fn claims_with(&self, changes: &Value) -> Value {
        let mut claims = self.claims();
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        claims
    }
}

pub(super) async fn ask(identity: &Identity, token: &str, offset: i64) -> Result<Principal, AuthFault> {
    identity.authenticate(Credential::Bearer(token), at(offset)).await.map_err(|refused| refused.fault)
}

pub(super) fn file(jwks: &Value) -> (tempfile::NamedTempFile, JwksSource) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), jwks.to_string()).unwrap();
    let source = JwksSource::File(file.path().to_owned());
    (file, source)
}
