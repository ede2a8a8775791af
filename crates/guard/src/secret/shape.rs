//! Secrets with an inner structure: a keyword and a pattern that is tried at that place only.

use super::{assignment, checksum, entropy, inside_word};
use crate::detector::Match;
use regex::Regex;
use std::ops::Range;
use std::sync::OnceLock;

/// One pattern. It is anchored, sees a bounded window from the keyword on, and its first group, if it has one, is
/// what is secret.
pub(super) struct Shape {
    pub(super) keyword: &'static str,
    kind: &'static str,
    window: usize,
    source: &'static str,
    pattern: OnceLock<Regex>,
    check: fn(&str) -> bool,
}

impl Shape {
    pub(super) fn at(&self, text: &str, hit: &Range<usize>) -> Option<Match> {
        if self.keyword.starts_with(|c: char| c.is_ascii_alphanumeric()) && self.goes_on(text, hit.start) {
            return None;
        }
        let end = text.floor_char_boundary(hit.start.saturating_add(self.window));
        let mut window = text.get(hit.start..end)?;
        // Nothing but a token of several parts holds its own keyword twice; without this cut, a text of nothing but
        // keywords would be read once for each.
        let behind = window.get(self.keyword.len()..).filter(|_| self.keyword != TOKEN);
        if let Some(again) = behind.and_then(|behind| behind.find(self.keyword)) {
            window = window.get(..self.keyword.len() + again)?;
        }
        let groups = self.pattern().captures(window)?;
        let group = groups.iter().skip(1).flatten().next().or_else(|| groups.get(0))?;
        if !(self.check)(group.as_str()) {
            return None;
        }
        Some(Match { kind: self.kind, span: hit.start + group.start()..hit.start + group.end() })
    }

    /// The keyword is the middle of a longer word.
    fn goes_on(&self, text: &str, at: usize) -> bool {
        let hyphen = self.keyword == TOKEN && text.get(..at).is_some_and(|before| before.ends_with('-'));
        hyphen || inside_word(text, at)
    }

    /// Compiled when its keyword is first met: most are never needed.
    fn pattern(&self) -> &Regex {
        #[expect(clippy::expect_used, reason = "the pattern is a constant, and a test compiles each")]
        self.pattern.get_or_init(|| Regex::new(&[r"\A(?:", self.source, ")"].concat()).expect("the pattern compiles"))
    }
}

/// How a JSON object begins in base64.
const TOKEN: &str = "eyJ";

const fn shape(
    kind: &'static str,
    keyword: &'static str,
    window: usize,
    source: &'static str,
    check: fn(&str) -> bool,
) -> Shape {
    Shape { keyword, kind, window, source, pattern: OnceLock::new(), check }
}

fn any(_: &str) -> bool {
    true
}

fn password(value: &str) -> bool {
    value.len() >= 3 && !assignment::stands_in(value)
}

fn credentials(value: &str) -> bool {
    value.len() >= 3 && !value.starts_with('[') && !assignment::placeholder(value)
}

fn chosen(value: &str) -> bool {
    password(value) && value.bytes().any(|b| b.is_ascii_digit())
}

fn random(value: &str) -> bool {
    !assignment::stands_in(value) && entropy::shannon(value) >= 3.0
}

fn credential(value: &str) -> bool {
    !assignment::placeholder(value)
        && value.len() >= 16
        && value.bytes().any(|b| b.is_ascii_digit())
        && entropy::shannon(value) >= 2.8
}

/// A key, not the mere mention of one: there is a line of base64.
fn pem(block: &str) -> bool {
    let body = block.split("KEY").nth(1).unwrap_or_default();
    let runs = body.split(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '+' | '/' | '=' | '\n' | '\r'));
    runs.map(|run| run.split_whitespace().map(str::len).max().unwrap_or(0)).any(|longest| longest >= 24)
}

// Repeats need no bound of their own: the window is one. Bounded ones would make the programs large.
const PRIVATE_KEY: &str = r"-----BEGIN[ A-Z0-9]*PRIVATE KEY(?: BLOCK)?-----(?:[^-]*(?:-[^-]+)*?-----END[ A-Z0-9]*PRIVATE KEY(?: BLOCK)?-----|[A-Za-z0-9+/=\s:,\\]*)";
const JWT: &str = r"eyJ[A-Za-z0-9_-]{8}[A-Za-z0-9_-]*=*\.ey[A-Za-z0-9_-]+=*(?:\.[A-Za-z0-9_-]*)?";
const JWE: &str = r"eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+";
const TEAMS: &str = r"\.webhook\.office\.com/webhookb2/([A-Za-z0-9@-]+/IncomingWebhook/[A-Za-z0-9]+/[A-Za-z0-9-]+)";
const URL_PASSWORD: &str = r#"://[^\s:/@"'<>{}()|\\]*:([^\s/@"'<>\\]+)@[A-Za-z0-9.\[_-]"#;
const BEARER: &str = r#"(?i:bearer)(?:\s+|%20|"?\s?[:=]\s?"?)([A-Za-z0-9_.=+/~-]+)"#;
const CURL: &str = r#"(?: -u|--user)[= ]*["']?[^\s:"'<>]+:([^\s"'<>]+)"#;

const IDENTIFIED: &str = r#"(?i:identified by)\s+["'`]?([^\s"'`;<>()]{6,64})"#;

/// The table.
pub(super) static SHAPES: [Shape; 16] = [
    shape("private-key", "-----BEGIN", 16384, PRIVATE_KEY, pem),
    shape("jwt", TOKEN, 8192, JWT, checksum::jwt),
    shape("jwe", TOKEN, 8192, JWE, checksum::jwt),
    shape(
        "slack-webhook",
        "hooks.slack.com/",
        200,
        r"hooks\.slack\.com/(?:services|workflows|triggers)/([A-Za-z0-9+/]{20,})",
        any,
    ),
    shape("discord-webhook", "/api/webhooks/", 200, r"/api/webhooks/[0-9]{17,20}/([A-Za-z0-9_-]{40,})", any),
    shape("teams-webhook", ".webhook.office.com/", 400, TEAMS, any),
    shape("azure-storage-key", "AccountKey", 160, r"(?i:AccountKey)\s*=\s*([A-Za-z0-9+/]{40,}=*)", random),
    shape("azure-shared-key", "SharedAccessKey", 160, r"(?i:SharedAccessKey)\s*=\s*([A-Za-z0-9+/]{30,}=*)", random),
    shape("azure-sas-signature", "sig=", 160, r"sig=((?:[A-Za-z0-9+/]|%2[bBfF]){40,}(?:=|%3[dD])+)", random),
    shape("url-password", "://", 640, URL_PASSWORD, password),
    shape("bearer-token", "bearer", 1024, BEARER, credential),
    shape("basic-credentials", "basic ", 512, r"(?i:basic)\s+([A-Za-z0-9+/]{10,}=*)", entropy::holds_credentials),
    shape("telegram-token", ":AA", 64, r"(:AA[A-Za-z0-9_-]{32,33})(?:[^A-Za-z0-9_-]|\z)", any),
    shape("password", "identified by", 128, IDENTIFIED, chosen),
    shape("curl-user", " -u", 300, CURL, credentials),
    shape("curl-user", "--user", 300, CURL, credentials),
];

#[test]
fn every_pattern_compiles() {
    for shape in &SHAPES {
        assert!(!shape.pattern().is_match(""), "{}", shape.keyword);
    }
}
