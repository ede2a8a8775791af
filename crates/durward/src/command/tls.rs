//! `durward tls`: an authority of one's own for trials, and the certificates that it vouches for.
//!
//! No key is printed, and none is overwritten by `init`. Who trusts the authority is for each client's owner to decide.

use super::print;
use crate::{
    cli::{Exit, Shared, TlsCommand, TlsFiles},
    config,
    up::DATA,
};
use anyhow::{Context, Result, bail};
use aws_lc_rs::digest::{SHA256, digest};
use gateway::clock::{Clock as _, SystemClock};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData as _, date_time_ymd,
};
use std::{
    fs::{self, DirBuilder, File},
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

/// How long a certificate is good for, in days.
const DAYS: u64 = 90;
/// How long the authority is, in days.
const AUTHORITY_DAYS: u64 = 5 * 365;
/// Clocks differ: certificates are good since so long ago.
const EARLIER: Duration = Duration::from_hours(1);
/// What is in a folder of ours: the authority and its key, the certificate and its key, and for which names.
const FILES: [&str; 5] = ["authority.pem", "authority.key", "certificate.pem", "certificate.key", "names"];
/// The longest list of names that is read, in bytes.
const LONGEST: u64 = 64 << 10;

/// Runs `durward tls`.
pub(crate) fn run(shared: &Shared, command: &TlsCommand) -> Result<Exit> {
    match command {
        TlsCommand::Init(files) => {
            let port = config::find(shared.config.as_deref()).and_then(|file| config::port_of(&file));
            init(&folder(shared, files), &files.names, port)
        }
        TlsCommand::Renew(files) => renew(&folder(shared, files), &files.names),
    }
}

fn folder(shared: &Shared, files: &TlsFiles) -> PathBuf {
    // The configuration may name certificates that are about to be made: what else is wrong with it is no matter here.
    let data = || match config::find(shared.config.as_deref()) {
        Some(file) => config::data_of(&file),
        None => PathBuf::from(DATA),
    };
    files.folder.clone().unwrap_or_else(|| shared.data.clone().unwrap_or_else(data).join("tls"))
}

fn init(folder: &Path, names: &[String], port: Option<u16>) -> Result<Exit> {
    let there: Vec<_> = FILES.iter().map(|name| folder.join(name)).filter(|path| path.exists()).collect();
    if !there.is_empty() {
        for path in there {
            print::say(&format!("durward: {} is already there; nothing was written", path.display()));
        }
        print::say("durward: `durward tls renew` makes another certificate under the authority that is there");
        return Ok(Exit::Failed);
    }
    let usual = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let names = if names.is_empty() { &usual[..] } else { names };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    let key = KeyPair::generate().context("no key can be drawn")?;
    let authority = authority(&key);
    let certificate = authority.self_signed(&key).context("the authority cannot be made")?.pem();
    write(&folder.join("authority.key"), &key.serialize_pem())?;
    write(&folder.join("authority.pem"), &certificate)?;
    issue(folder, names, &Issuer::new(authority, key))?;
    for name in FILES {
        print::data(&folder.join(name).display().to_string())?;
    }
    advise(folder, names, port);
    Ok(Exit::Done)
}

fn renew(folder: &Path, names: &[String]) -> Result<Exit> {
    let path = folder.join("authority.key");
    let text = fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}; `durward tls init` makes an authority", path.display()))?;
    let text = zeroize::Zeroizing::new(text);
    let key = KeyPair::from_pem(&text).with_context(|| format!("{} holds no private key", path.display()))?;
    let known = match names {
        [] => remembered(folder)?,
        given => given.to_vec(),
    };
    issue(folder, &known, &Issuer::new(authority(&key), key))?;
    for name in ["certificate.pem", "certificate.key"] {
        print::data(&folder.join(name).display().to_string())?;
    }
    print::say(&format!("good for {DAYS} days; a gateway that shows it notices by itself"));
    Ok(Exit::Done)
}

/// The names of the last certificate.
fn remembered(folder: &Path) -> Result<Vec<String>> {
    let path = folder.join("names");
    let here = || format!("cannot read {}; name what clients dial", path.display());
    if fs::metadata(&path).with_context(here)?.len() > LONGEST {
        bail!("{} is too long", path.display());
    }
    let text = fs::read_to_string(&path).with_context(here)?;
    Ok(text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

/// The authority of a key. Everything in it but the time follows from the key: `renew` needs no more than that.
fn authority(key: &KeyPair) -> CertificateParams {
    let mut authority = CertificateParams::default();
    // Two authorities of two keys must not bear one name.
    let mark = digest(&SHA256, key.der_bytes());
    let mark = mark.as_ref().first_chunk().map_or(0, |start| u32::from_be_bytes(*start));
    authority.distinguished_name.remove(DnType::CommonName);
    authority.distinguished_name.push(DnType::CommonName, format!("Durward trial authority {mark:08x}"));
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    lasting(&mut authority, AUTHORITY_DAYS);
    authority
}

/// Writes a certificate for these names, and its key.
fn issue(folder: &Path, names: &[String], authority: &Issuer<'_, KeyPair>) -> Result<()> {
    let mut params = CertificateParams::new(names).context("these names cannot stand in a certificate")?;
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, names.first().map_or("durward", String::as_str));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    lasting(&mut params, DAYS);
    let key = KeyPair::generate().context("no key can be drawn")?;
    let certificate = params.signed_by(&key, authority).context("the certificate cannot be made")?;
    write(&folder.join("names"), &format!("{}\n", names.join("\n")))?;
    write(&folder.join("certificate.key"), &key.serialize_pem())?;
    write(&folder.join("certificate.pem"), &certificate.pem())
}

fn lasting(params: &mut CertificateParams, days: u64) {
    let now = Duration::from_secs(u64::try_from(SystemClock::new().now().as_seconds()).unwrap_or_default());
    params.not_before = date_time_ymd(1970, 1, 1) + now.saturating_sub(EARLIER);
    params.not_after = date_time_ymd(1970, 1, 1) + now + Duration::from_hours(24 * days);
}

/// Puts a file that its owner alone can read into its place, whole.
fn write(path: &Path, text: &str) -> Result<()> {
    let next = path.with_added_extension("new");
    let written = || -> std::io::Result<()> {
        // What an earlier run left half done has the mode of its time.
        match fs::remove_file(&next) {
            Err(fault) if fault.kind() != std::io::ErrorKind::NotFound => return Err(fault),
            Ok(()) | Err(_) => {}
        }
        let mut file = File::options().create_new(true).write(true).mode(0o600).open(&next)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&next, path)
    };
    written().with_context(|| format!("cannot write {}", path.display()))
}

/// Says what to do with them. `port`: where the configuration listens, if it says so.
fn advise(folder: &Path, names: &[String], port: Option<u16>) {
    // Clients and services start elsewhere: what they are told to read is named in full.
    let folder = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    let file = |name: &str| folder.join(name).display().to_string();
    let (certificate, key, authority) = (file("certificate.pem"), file("certificate.key"), file("authority.pem"));
    let name = names.first().map_or("localhost", String::as_str);
    // An address of IPv6 stands in brackets.
    let host = if name.contains(':') { format!("[{name}]") } else { name.to_owned() };
    // Not on the line that one copies.
    let (port, note) = match port {
        Some(0) => {
            ("PORT".to_owned(), "\n    (PORT: `listen` leaves it to the system, and `durward up` says which it is)")
        }
        Some(port) => (port.to_string(), ""),
        None => (config::PORT.to_string(), "\n    (where `listen` names another port: that)"),
    };
    print::say(&format!(
        "in durward.yaml:\n  \
         tls: {{ certificate: \"{certificate}\", key: \"{key}\" }}\n  \
         hosts: [{}]\n\n\
         clients trust it by one of\n  \
         durward connect --ca-file {authority} https://{host}:{port}/mcp{note}\n  \
         NODE_EXTRA_CA_CERTS={authority}      Node\n  \
         SSL_CERT_FILE={authority}            OpenSSL, Python and others, instead of what the system trusts\n  \
         sudo cp {authority} /usr/local/share/ca-certificates/durward.crt && sudo update-ca-certificates\n\n\
         the certificate is good for {DAYS} days: `durward tls renew` makes the next one",
        names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", "),
    ));
}
