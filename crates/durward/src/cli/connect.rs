//! `durward connect` and its words.

use clap::Args;
use std::path::PathBuf;
use url::Url;
use vocab::AgentId;

/// Where a gateway is unless somebody says otherwise.
const USUAL: &str = "http://127.0.0.1:7420/mcp";

/// `durward connect`
#[derive(Debug, Clone, Args)]
pub(crate) struct ConnectCommand {
    /// The gateway, or one server of it: `http://127.0.0.1:7420/mcp/files`.
    // The help shows no value: a query may carry a credential.
    #[arg(default_value = USUAL, value_parser = address, env = "DURWARD_URL", hide_env_values = true)]
    pub(crate) url: Url,
    /// A Unix socket of the gateway, dialled in place of the host of the URL.
    #[arg(long, value_name = "PATH", env = "DURWARD_SOCKET")]
    pub(crate) socket: Option<PathBuf>,
    /// A file that holds nothing but the key or token, and that nobody else may read.
    ///
    /// Unless given, and without --keyring, the variable `DURWARD_KEY_FILE` names it, or the variable `DURWARD_KEY` holds
    /// the key itself. No argument ever does: others see arguments.
    // Not read by `clap`: what the environment says contradicts no flag.
    #[arg(long, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
    /// Take the key or token from the keyring of the system, where `--save` put it for this gateway.
    ///
    /// Whatever the variables `DURWARD_KEY_FILE` and `DURWARD_KEY` say. NAME tells several keys for one gateway apart.
    #[arg(
        long,
        value_name = "NAME",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "default",
        conflicts_with = "key_file"
    )]
    pub(crate) keyring: Option<AgentId>,
    /// Read a key or token from stdin, put it into the keyring for this gateway, and end.
    #[arg(long, requires = "keyring", conflicts_with = "forget")]
    pub(crate) save: bool,
    /// Take the key or token for this gateway out of the keyring, and end.
    #[arg(long, requires = "keyring")]
    pub(crate) forget: bool,
    /// Certificates (PEM) of the authorities that may vouch for the gateway, instead of the system's.
    #[arg(long, value_name = "FILE", env = "DURWARD_CA_FILE")]
    pub(crate) ca_file: Option<PathBuf>,
}

impl ConnectCommand {
    /// What one argument says against another.
    pub(crate) fn contradiction(&self) -> Option<String> {
        let is_secure = self.url.scheme() == "https";
        if let Some(socket) = self.socket.as_deref().filter(|_| is_secure) {
            let socket = socket.display();
            return Some(format!(
                "a gateway speaks no TLS on its sockets: write http before what --socket {socket} serves"
            ));
        }
        if let Some(file) = self.ca_file.as_deref().filter(|_| !is_secure) {
            let file = file.display();
            return Some(format!(
                "--ca-file {file} (or the variable DURWARD_CA_FILE) says whom to trust with TLS, and there is none: \
                 write https, or leave it out"
            ));
        }
        None
    }

    /// What a key is kept for: where it may travel to, whichever server of it is used.
    pub(crate) fn gateway(&self) -> String {
        match &self.socket {
            Some(path) => format!("unix:{}", std::path::absolute(path).as_ref().unwrap_or(path).display()),
            None => self.url.origin().ascii_serialization(),
        }
    }
}

/// An address that can be dialled. One without a path means everything that the gateway has.
fn address(text: &str) -> Result<Url, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return Err(format!("a socket is named beside the address: --socket {path}"));
    }
    let mut url = Url::parse(text).map_err(|fault| format!("{fault}; write it as {USUAL}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(format!("not an http or https address; write it as {USUAL}"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        // What is wrong is said without it: this text ends on a screen.
        let places = "put the key into the keyring (--keyring --save), a file (--key-file) or the variable DURWARD_KEY";
        return Err(format!("an address carries no name or password; {places}"));
    }
    if url.fragment().is_some() {
        return Err("what follows `#` is never sent".to_owned());
    }
    if url.path() == "/" {
        url.set_path("/mcp");
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::{ConnectCommand, address};
    use crate::cli::{Cli, Command};
    use clap::Parser;

    #[test]
    fn an_address_is_one_that_can_be_dialled_and_holds_no_secret() {
        for (text, is) in [
            ("http://127.0.0.1:7420", "http://127.0.0.1:7420/mcp"),
            ("https://gate.example/mcp/files", "https://gate.example/mcp/files"),
            ("https://gate.example/mcp?a=b", "https://gate.example/mcp?a=b"),
        ] {
            assert_eq!(address(text).unwrap().as_str(), is);
        }
        for text in ["", "127.0.0.1:7420", "ftp://a/", "http://", "https://a/#b", "https://me:dwk_hunter2@a/mcp"] {
            let fault = address(text).unwrap_err();
            assert!(!fault.contains("hunter2"), "{fault}");
        }
        assert!(address("unix:/run/durward.sock").unwrap_err().contains("--socket /run/durward.sock"));
    }

    fn parsed(arguments: &str) -> ConnectCommand {
        let words = ["durward", "connect"].into_iter().chain(arguments.split_whitespace());
        let Command::Connect(command) = Cli::try_parse_from(words).unwrap().command else { panic!("another command") };
        command
    }

    #[test]
    fn what_would_be_ignored_is_told() {
        for (arguments, told) in [
            ("http://gate.example/mcp --ca-file a.pem", Some("--ca-file a.pem")),
            ("--ca-file a.pem", Some("there is none")),
            ("--socket a.sock --ca-file a.pem", Some("there is none")),
            ("https://gate.example/mcp --socket a.sock", Some("--socket a.sock")),
            ("https://gate.example/mcp --ca-file a.pem", None),
            ("http://gate.example/mcp/files --socket a.sock", None),
        ] {
            let fault = parsed(arguments).contradiction();
            assert_eq!(fault.is_some(), told.is_some(), "{arguments}: {fault:?}");
            assert!(told.is_none_or(|told| fault.unwrap().contains(told)), "{arguments}");
        }
    }

    #[test]
    fn a_key_is_kept_for_a_gateway_and_not_for_a_server_of_it() {
        for (arguments, gateway) in [
            ("https://gate.example/mcp/files?a=b --keyring", "https://gate.example"),
            ("https://GATE.example:443 --keyring", "https://gate.example"),
            ("http://127.0.0.1:7420/mcp --keyring=ci", "http://127.0.0.1:7420"),
            ("--socket /run/durward.sock --keyring", "unix:/run/durward.sock"),
        ] {
            assert_eq!(parsed(arguments).gateway(), gateway);
        }
    }
}
