//! Tokens that begin with a known prefix and go on in a known alphabet for a known length.

use super::{checksum, entropy, inside_word};
use crate::detector::Match;
use std::ops::{Range, RangeInclusive};

/// So much after a prefix, with a digit, is hardly a word.
const BEGUN: usize = 8;

/// The characters of a token after its prefix.
#[derive(Clone, Copy)]
pub(super) enum Alphabet {
    Hex,
    Digit,
    Upper32,
    Alnum,
    Word,
    Url,
    Base64,
    Dotted,
}

impl Alphabet {
    const fn has(self, byte: u8) -> bool {
        match self {
            Self::Hex => byte.is_ascii_hexdigit(),
            Self::Digit => byte.is_ascii_digit(),
            Self::Upper32 => byte.is_ascii_uppercase() || byte.is_ascii_digit(),
            Self::Alnum => byte.is_ascii_alphanumeric(),
            Self::Word => byte.is_ascii_alphanumeric() || byte == b'_',
            Self::Url => byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'),
            Self::Base64 => byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'_' | b'-'),
            Self::Dotted => {
                byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'=' | b'+' | b'/' | b'~')
            }
        }
    }
}

/// One format.
pub(super) struct Format {
    pub(super) kind: &'static str,
    pub(super) prefix: &'static str,
    alphabet: Alphabet,
    length: RangeInclusive<usize>,
    check: fn(&str) -> bool,
}

impl Format {
    /// The token that begins at a hit of the prefix.
    pub(super) fn at(&self, text: &str, hit: &Range<usize>) -> Option<Match> {
        // The automaton ignores case, the format does not.
        if text.get(hit.clone()) != Some(self.prefix) || inside_word(text, hit.start) {
            return None;
        }
        let rest = text.as_bytes().get(hit.end..)?;
        let length = rest.iter().take(self.length.end() + 1).take_while(|byte| self.alphabet.has(**byte)).count();
        let span = hit.start..hit.end + length;
        let token = text.get(span.clone())?;
        let body = text.get(hit.end..span.end)?;
        (self.length.contains(&length) && !entropy::repeats(body) && (self.check)(token))
            .then_some(Match { kind: self.kind, span })
    }

    /// One that begins at a hit of the prefix, runs to the end of the text and is too short as yet.
    pub(super) fn begun_at(&self, text: &str, hit: &Range<usize>) -> Option<Match> {
        let rest = text.get(hit.end..).filter(|rest| (BEGUN..*self.length.start()).contains(&rest.len()))?;
        let is_one = text.get(hit.clone()) == Some(self.prefix)
            && !inside_word(text, hit.start)
            && rest.bytes().all(|byte| self.alphabet.has(byte))
            && has_digit(rest)
            && !entropy::repeats(rest);
        is_one.then_some(Match { kind: self.kind, span: hit.start..text.len() })
    }
}

const fn format(kind: &'static str, prefix: &'static str, alphabet: Alphabet, length: RangeInclusive<usize>) -> Format {
    Format { kind, prefix, alphabet, length, check: shape_is_enough }
}

const fn checked(
    kind: &'static str,
    prefix: &'static str,
    alphabet: Alphabet,
    length: RangeInclusive<usize>,
    check: fn(&str) -> bool,
) -> Format {
    Format { kind, prefix, alphabet, length, check }
}

const fn shape_is_enough(_: &str) -> bool {
    true
}

fn has_digit(token: &str) -> bool {
    token.bytes().any(|byte| byte.is_ascii_digit())
}

fn sendgrid(token: &str) -> bool {
    token.split('.').nth(2).is_some_and(|last| last.len() >= 30) && token.split('.').count() == 3
}

use Alphabet::{Alnum, Base64, Digit, Dotted, Hex, Upper32, Url, Word};

/// The table. Order matters only where one prefix begins another: the longer one stands first.
pub(super) static FORMATS: [Format; 104] = [
    checked("github-token", "ghp_", Alnum, 36..=36, checksum::crc_base62),
    checked("github-token", "gho_", Alnum, 36..=36, checksum::crc_base62),
    checked("github-token", "ghu_", Alnum, 36..=36, checksum::crc_base62),
    checked("github-token", "ghs_", Alnum, 36..=36, checksum::crc_base62),
    checked("github-token", "ghr_", Alnum, 36..=76, checksum::crc_base62),
    format("github-token", "github_pat_", Word, 82..=82),
    checked("npm-token", "npm_", Alnum, 36..=36, checksum::crc_base62),
    format("durward-key", "dwk_", Url, 32..=96),
    format("aws-access-key", "AKIA", Upper32, 16..=16),
    format("aws-access-key", "ASIA", Upper32, 16..=16),
    format("aws-access-key", "ABIA", Upper32, 16..=16),
    format("aws-access-key", "ACCA", Upper32, 16..=16),
    format("aws-bedrock-key", "ABSK", Base64, 109..=269),
    format("google-api-key", "AIza", Url, 35..=35),
    format("google-oauth-secret", "GOCSPX-", Url, 28..=28),
    format("google-oauth-token", "ya29.", Url, 20..=400),
    format("google-refresh-token", "1//0", Url, 30..=200),
    checked("slack-token", "xoxb-", Url, 10..=200, has_digit),
    checked("slack-token", "xoxp-", Url, 10..=200, has_digit),
    checked("slack-token", "xoxa-", Url, 10..=200, has_digit),
    checked("slack-token", "xoxr-", Url, 10..=200, has_digit),
    checked("slack-token", "xoxs-", Url, 10..=200, has_digit),
    checked("slack-token", "xoxo-", Url, 10..=200, has_digit),
    checked("slack-token", "xoxe-", Url, 10..=300, has_digit),
    checked("slack-token", "xoxe.xoxp-", Url, 10..=300, has_digit),
    checked("slack-token", "xoxe.xoxb-", Url, 10..=300, has_digit),
    checked("slack-token", "xapp-", Url, 20..=200, has_digit),
    format("stripe-key", "sk_live_", Alnum, 10..=247),
    format("stripe-key", "rk_live_", Alnum, 10..=247),
    format("stripe-key", "sk_test_", Alnum, 10..=247),
    format("stripe-key", "rk_test_", Alnum, 10..=247),
    format("stripe-webhook-secret", "whsec_", Base64, 24..=80),
    format("anthropic-key", "sk-ant-", Url, 24..=160),
    format("openrouter-key", "sk-or-v1-", Hex, 64..=64),
    format("openai-key", "sk-proj-", Url, 20..=220),
    format("openai-key", "sk-svcacct-", Url, 20..=220),
    format("openai-key", "sk-admin-", Url, 20..=220),
    checked("openai-key", "sk-", Alnum, 32..=64, has_digit),
    format("gitlab-token", "glpat-", Dotted, 20..=120),
    format("gitlab-token", "gldt-", Url, 20..=64),
    format("gitlab-token", "glrt-", Dotted, 20..=120),
    format("gitlab-token", "glptt-", Url, 20..=64),
    format("gitlab-token", "glcbt-", Url, 20..=64),
    format("gitlab-token", "glsoat-", Url, 20..=64),
    format("gitlab-token", "glagent-", Url, 40..=80),
    format("gitlab-token", "GR1348941", Url, 20..=24),
    format("twilio-key", "SK", Hex, 32..=32),
    checked("sendgrid-key", "SG.", Dotted, 50..=80, sendgrid),
    format("pypi-token", "pypi-AgE", Url, 80..=400),
    format("huggingface-token", "hf_", Alnum, 30..=40),
    format("huggingface-token", "api_org_", Alnum, 30..=40),
    format("digitalocean-token", "dop_v1_", Hex, 64..=64),
    format("digitalocean-token", "doo_v1_", Hex, 64..=64),
    format("digitalocean-token", "dor_v1_", Hex, 64..=64),
    format("shopify-token", "shpat_", Hex, 32..=32),
    format("shopify-token", "shpca_", Hex, 32..=32),
    format("shopify-token", "shppa_", Hex, 32..=32),
    format("shopify-token", "shpss_", Hex, 32..=32),
    checked("mailgun-key", "key-", Hex, 32..=32, has_digit),
    format("databricks-token", "dapi", Hex, 32..=32),
    format("vault-token", "hvs.", Url, 24..=200),
    format("vault-token", "hvb.", Url, 24..=250),
    format("vault-token", "hvr.", Url, 24..=200),
    format("age-secret-key", "AGE-SECRET-KEY-1", Upper32, 58..=58),
    format("linear-key", "lin_api_", Alnum, 32..=48),
    format("notion-token", "secret_", Alnum, 43..=43),
    format("notion-token", "ntn_", Alnum, 40..=60),
    format("postman-key", "PMAK-", Url, 50..=64),
    format("grafana-token", "glsa_", Word, 40..=48),
    format("grafana-token", "glc_", Base64, 32..=400),
    format("newrelic-key", "NRAK-", Upper32, 27..=27),
    format("newrelic-key", "NRII-", Url, 32..=32),
    format("doppler-token", "dp.pt.", Alnum, 40..=44),
    format("doppler-token", "dp.st.", Dotted, 40..=80),
    format("docker-token", "dckr_pat_", Url, 24..=32),
    format("docker-token", "dckr_oat_", Url, 24..=40),
    format("flyio-token", "FlyV1 fm2_", Base64, 40..=1200),
    format("flyio-token", "fo1_", Url, 40..=48),
    format("planetscale-token", "pscale_tkn_", Dotted, 32..=64),
    format("planetscale-token", "pscale_pw_", Dotted, 32..=64),
    format("pulumi-token", "pul-", Hex, 40..=40),
    format("square-token", "sq0csp-", Url, 40..=50),
    format("square-token", "sq0atp-", Url, 22..=22),
    format("square-token", "EAAA", Base64, 60..=60),
    format("facebook-token", "EAA", Alnum, 60..=400),
    format("tailscale-key", "tskey-", Url, 16..=80),
    format("sonarqube-token", "sqp_", Hex, 40..=40),
    format("sonarqube-token", "squ_", Hex, 40..=40),
    format("sonarqube-token", "sqa_", Hex, 40..=40),
    format("figma-token", "figd_", Url, 38..=48),
    format("airtable-token", "pat", Dotted, 79..=79),
    format("dynatrace-token", "dt0c01.", Dotted, 80..=96),
    format("rubygems-key", "rubygems_", Hex, 48..=48),
    format("groq-key", "gsk_", Alnum, 48..=56),
    format("replicate-token", "r8_", Alnum, 36..=48),
    format("perplexity-key", "pplx-", Alnum, 40..=56),
    format("xai-key", "xai-", Alnum, 70..=90),
    format("supabase-key", "sb_secret_", Url, 24..=48),
    format("supabase-key", "sbp_", Hex, 40..=40),
    format("sentry-token", "sntryu_", Hex, 64..=64),
    format("sentry-token", "sntrys_", Base64, 60..=400),
    format("atlassian-token", "ATATT3", Base64, 60..=240),
    format("artifactory-key", "AKCp", Alnum, 60..=80),
    format("facebook-app-token", "EAACEdEose0cBA", Digit, 1..=400),
];
