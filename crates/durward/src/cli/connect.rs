//! `durward connect` and its words.

use clap::Args;
use std::path::PathBuf;
use url::Url;

/// Where a gateway is unless somebody says otherwise.
const USUAL: &str = "http://127.0.0.1:7420/mcp";

/// `durward connect`
#[derive(Debug, Clone, Args)]
pub(crate) struct ConnectCommand {
    /// The gateway, or one server of it: `http://127.0.0.1:7420/mcp/files`.
    #[arg(default_value = USUAL, value_parser = address, env = "DURWARD_URL")]
    pub(crate) url: Url,
    /// A file that holds nothing but the key or token, and that nobody else may read.
    ///
    /// Unless given, the variable `DURWARD_KEY` holds it. No argument ever does: others see arguments.
    #[arg(long, value_name = "FILE", env = "DURWARD_KEY_FILE")]
    pub(crate) key_file: Option<PathBuf>,
    /// Certificates (PEM) of the authorities that may vouch for the gateway, instead of the system's.
    #[arg(long, value_name = "FILE", env = "DURWARD_CA_FILE")]
    pub(crate) ca_file: Option<PathBuf>,
}

/// An address that can be dialled. One without a path means everything that the gateway has.
fn address(text: &str) -> Result<Url, String> {
    let mut url = Url::parse(text).map_err(|fault| format!("{fault}; write it as {USUAL}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(format!("not an http or https address; write it as {USUAL}"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        // What is wrong is said without it: this text ends on a screen.
        return Err("a URL carries no name or password; put the key into DURWARD_KEY or --key-file".to_owned());
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
    use super::address;

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
    }
}
