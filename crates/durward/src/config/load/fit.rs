//! Whether the files that a configuration names hold what they are for: what would not start is no good configuration.

use super::{Fault, Faults, Node, Settings, chain};
use crate::config::settings::{Issuer, KeySource};
use egress::Roots;
use std::{fs, io, path::Path};
use vault::KeyFault;

/// Roots that servers are held against.
pub(super) fn roots(root: &Node, base: &Path, faults: &mut Faults) {
    for server in root.get("servers").map(Node::entries).unwrap_or_default() {
        let Some((node, file)) = file_in(Some(&server.node), "ca") else { continue };
        let why = match fs::read(base.join(file)).map(|pem| Roots::from_pem(&pem)) {
            // One that is not there was reported as such.
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => continue,
            Ok(Ok(_)) => continue,
            Err(cause) => cause.to_string(),
            Ok(Err(cause)) => chain(&cause),
        };
        faults.push(
            Fault::at(&node.span, "the trusted certificates cannot be used")
                .because(why)
                .fix("name a file in PEM with the certificates that vouch for the server"),
        );
    }
}

/// Where the files of keys stand of issuers that are known: the keys of before stay in force whatever became of such a file,
/// and that is said when it is read.
pub(super) fn kept_keys<'n>(root: &'n Node, settings: &Settings, known: &[Issuer]) -> Vec<&'n Node> {
    let is_known = |issuer: &&Node| {
        let url = issuer.get("url").and_then(Node::text);
        let mut read = settings.issuers.iter().filter(|read| url == Some(&read.url));
        read.any(|read| known.iter().any(|known| known.shares_keys(read)))
    };
    let issuers = root.get("issuers").map(Node::each).unwrap_or_default().iter();
    issuers.filter(is_known).filter_map(|issuer| file_in(issuer.get("jwks"), "file")).map(|(node, _)| node).collect()
}

/// Keys of issuers, but of those that go on with the keys of before.
pub(super) fn key_sets(root: &Node, base: &Path, kept: &[&Node], faults: &mut Faults) {
    for issuer in root.get("issuers").map(Node::each).unwrap_or_default() {
        let Some((node, file)) = file_in(issuer.get("jwks"), "file") else { continue };
        let path = base.join(file);
        if holds(kept, node) {
            continue;
        }
        if let Some(why) = path.is_file().then(|| identity::why_no_keys(&path)).flatten() {
            faults.push(
                Fault::at(&node.span, "no token could be verified with this file")
                    .because(why)
                    .fix("name a JSON Web Key Set: `{\"keys\": […]}`, as the issuer publishes it"),
            );
        }
    }
}

/// Whether this is one of these nodes itself.
pub(super) fn holds(nodes: &[&Node], node: &Node) -> bool {
    nodes.iter().any(|one| std::ptr::eq(*one, node))
}

/// The master key, where a file of the operator's own holds it. Nothing is made, and no command is run.
pub(super) fn master_key(root: &Node, settings: &Settings) -> Option<Fault> {
    let KeySource::File(path) = &settings.vault.key else { return None };
    let node = root.get("vault")?.get("key")?.get("file")?;
    let fault = |what: String| Fault::at(&node.span, what);
    Some(match vault::KeySource::File(path.clone()).check(&settings.data).err()? {
        KeyFault::Absent { .. } => fault("this file does not exist".to_owned()).fix(
            "paths begin at the folder of this file; `(umask 077; head -c 32 /dev/urandom | base64 > FILE)` makes a key",
        ),
        KeyFault::Missing { .. } => fault("the master key is missing".to_owned())
            .because("the data directory was in use")
            .fix("restore the key: without it nothing opens what is there"),
        KeyFault::Mode { mode, .. } => fault("others may read the master key".to_owned())
            .because(format!("its mode is {mode:03o}"))
            .fix("`chmod 600` it"),
        other => fault(chain(&other)).fix("name a file of mode 0600 that holds 32 random bytes"),
    })
}

/// The file that is named under `key`, and where.
fn file_in<'n>(table: Option<&'n Node>, key: &str) -> Option<(&'n Node, &'n str)> {
    let node = table?.get(key)?;
    Some((node, node.text().filter(|text| !text.contains("${"))?))
}
