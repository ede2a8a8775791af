//! `durward tls` and its words.

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `durward tls`
#[derive(Debug, Subcommand)]
#[command(after_help = super::EXIT_CODES)]
pub(crate) enum TlsCommand {
    /// Make an authority of your own, and a certificate that it vouches for.
    #[command(
        after_help = "Overwrites nothing. Whoever holds authority.key can vouch for any name to those who trust \
        authority.pem: keep it, or delete it and make everything anew when the certificate ends.\n\n\
        Example:\n  durward tls init localhost gate.lan 192.168.1.5"
    )]
    Init(TlsFiles),
    /// Make another certificate and key under the authority that is there.
    #[command(after_help = "A gateway that shows them notices. Without names those of before are kept.")]
    Renew(TlsFiles),
}

/// Which names, and where.
#[derive(Debug, Clone, Args)]
pub(crate) struct TlsFiles {
    /// What clients dial: names and addresses. localhost, 127.0.0.1 and `::1` unless given.
    #[arg(value_parser = name)]
    pub(crate) names: Vec<String>,
    /// The folder of the files; `tls` in the data directory unless given.
    #[arg(long, value_name = "DIR")]
    pub(crate) folder: Option<PathBuf>,
}

/// A name that a certificate can carry.
fn name(text: &str) -> Result<String, String> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    let is_name = text.len() <= 253 && text.strip_prefix("*.").unwrap_or(text).split('.').all(label);
    if is_name || text.parse::<std::net::IpAddr>().is_ok() {
        return Ok(text.to_owned());
    }
    Err("write a name or an address alone, without scheme, port or path: gate.lan".to_owned())
}

#[cfg(test)]
mod tests {
    use super::name;

    #[test]
    fn a_name_is_what_stands_between_scheme_and_port() {
        for text in ["localhost", "gate.lan", "*.gate.lan", "192.168.1.5", "::1"] {
            assert_eq!(name(text).as_deref(), Ok(text));
        }
        for text in ["", "https://gate.lan", "gate.lan:443", "gate.lan/mcp", "a b", "gate..lan", "ü.lan", "a.*.lan"] {
            assert!(name(text).is_err(), "{text}");
        }
    }
}
