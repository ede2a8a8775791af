//! What a call names, as it may be shown: in its record, in metrics, spans and the log line.
//!
//! SECURITY: a record is for ever, and others read it than those who may read what is said. So secrets that detectors know
//! are masked in a name or an address, whatever is configured for the traffic, and an address is shown without whom it
//! signs in. Rules, limits and servers see the name itself. What a record's digest of the parameters is of is the name itself,
//! too.

use guard::{Guards, Mode, Setting, Verdict};
use mcp::name;
use serde_json::json;
use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt,
    ops::Deref,
    panic,
    sync::{Arc, LazyLock, OnceLock},
};
use vocab::Action;

/// Shown where nothing of a text may be.
const NOTHING: &str = "[redacted]";
/// Shown of the part of a text that nobody looks through.
const TOO_LONG: &str = "[too long]";

/// The longest text that is looked through, in bytes. SECURITY: what it costs grows with the length, which callers choose.
const LONGEST: usize = 2048;
/// The longest method that is shown, in bytes: nobody has proved yet who says it.
const LONGEST_METHOD: usize = 128;

/// Masks all that is found: these texts are shown, and go nowhere.
static SECRETS: LazyLock<Guards> =
    LazyLock::new(|| Guards::new(Setting { results: Mode::Mask, arguments: Mode::Mask }));

/// A name that may be shown. What may be shown of it is found out when it is first read: for a record, behind all that may
/// turn a call away.
#[derive(Clone)]
pub struct Label {
    name: Arc<str>,
    place: &'static str,
    shown: OnceLock<Arc<str>>,
}

impl Label {
    /// What may be shown of a name that something was asked for.
    pub fn of(name: &Arc<str>, action: Option<Action>) -> Self {
        // Detectors look at a name and an address for shapes, and at what is to be completed for all.
        let place = if action == Some(Action::CompletionComplete) { "ref" } else { "uri" };
        Self { name: Arc::clone(name), place, shown: OnceLock::new() }
    }
}

impl Deref for Label {
    type Target = str;

    fn deref(&self) -> &str {
        self.shown.get_or_init(|| {
            // A record is made where a second panic would end the process.
            match panic::catch_unwind(|| shown_at(&self.name, self.place)) {
                Ok(Cow::Borrowed(_)) => Arc::clone(&self.name),
                Ok(Cow::Owned(shown)) => shown.into(),
                Err(_) => NOTHING.into(),
            }
        })
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

/// What may be shown of a name, or of a text in which a name stands. A part of it is taken afterwards: half a secret is
/// none that anybody knows.
pub fn shown(text: &str) -> Cow<'_, str> {
    // As an address: what may look random by right is looked at for its shape alone.
    shown_at(text, "uri")
}

/// What may be shown of a method that is none of the protocol's.
pub(crate) fn method(method: &str) -> Cow<'_, str> {
    if method.len() > LONGEST_METHOD { Cow::Borrowed(TOO_LONG) } else { shown(method) }
}

fn shown_at<'t>(text: &'t str, place: &str) -> Cow<'t, str> {
    if text.len() > LONGEST {
        let begins = shown_at(beginning(text), place);
        return Cow::Owned([&begins, TOO_LONG].concat());
    }
    let text = unsigned(text);
    let text = masked(&text, place).map_or(text, Cow::Owned);
    // On `/mcp` a name follows that of its server. Detectors would take the two for one word.
    match text.split_once(name::SEPARATOR).and_then(|(server, own)| Some((server, masked(own, place)?))) {
        Some((server, own)) => Cow::Owned([server, name::SEPARATOR, &own].concat()),
        None => text,
    }
}

/// What is looked through of a long text: whole words, for half a secret is none that anybody knows.
fn beginning(text: &str) -> &str {
    let begins = text.get(..text.floor_char_boundary(LONGEST)).unwrap_or_default();
    begins.rfind(char::is_whitespace).and_then(|at| begins.get(..=at)).unwrap_or_default()
}

/// A text with the secrets masked that are found where it stands. `None` if there are none.
fn masked(text: &str, place: &str) -> Option<String> {
    if SECRETS.is_clean_argument(text) {
        return None;
    }
    let nothing = || Some(NOTHING.to_owned());
    match SECRETS.screen(json!({ place: text }).to_string().as_bytes()).verdict {
        Verdict::Clean => None,
        Verdict::Masked(json) => {
            let masked: Result<BTreeMap<String, String>, _> = serde_json::from_slice(&json);
            masked.ok().and_then(|mut masked| masked.remove(place)).or_else(nothing)
        }
        Verdict::Refused => nothing(),
    }
}

/// A text in which no address says who signs in: `scheme://user:password@host` is `scheme://host`.
fn unsigned(text: &str) -> Cow<'_, str> {
    if !text.contains('@') {
        return Cow::Borrowed(text);
    }
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = authority(rest, out.is_empty()) {
        let (before, after) = rest.split_at(at);
        out.push_str(before);
        let (signed, is_sure) = signature(after);
        if !is_sure {
            // What is left may name a host that nobody asked for.
            out.push_str(NOTHING);
            out.push('@');
        }
        rest = after.get(signed..).unwrap_or_default();
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// How much of what follows `//` says who signs in, and whether that is sure.
fn signature(text: &str) -> (usize, bool) {
    let ends = |letter: char| matches!(letter, '/' | '?' | '#' | '\\') || letter.is_whitespace();
    let (host, path) = text.split_at(text.find(ends).unwrap_or(text.len()));
    if let Some(at) = host.rfind('@') {
        return (at + 1, true);
    }
    // SECURITY: a password may hold what ends a host, though it must not. What stands before the last `@` goes then.
    match text.rfind('@') {
        Some(at) if names_a_password(host, path) => (at + 1, false),
        _ => (0, true),
    }
}

/// Whether a colon in what looks like a host begins no port.
fn names_a_password(host: &str, path: &str) -> bool {
    let Some((name, port)) = host.split_once(':') else { return false };
    let is_port = (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit());
    let is_over = !path.starts_with(['?', '#', '\\']);
    !(is_port && is_over || name.starts_with('['))
}

/// Where the next authority of an address begins. One at the very beginning needs no scheme.
fn authority(text: &str, first: bool) -> Option<usize> {
    if first && text.starts_with("//") {
        return Some(2);
    }
    text.find("://").map(|at| at + 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "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";
    /// Random, and of no known shape.
    const RANDOM: &str = "ghp_A7dK2mQ9xR4tV8wZ1cF6hJ3nP5sY0u2Kq9Lb";

    #[test]
    fn an_address_is_shown_without_whom_it_signs_in() {
        for (text, expected) in [
            ("postgres://app:hunter2@db.internal/orders", "postgres://db.internal/orders"),
            ("https://user@host", "https://host"),
            ("https://user:p@ss:w@rd@host:8443/a@b?c=d@e", "https://host:8443/a@b?c=d@e"),
            ("https://user:pass@host\\path", "https://host\\path"),
            ("//user:pass@host/x", "//host/x"),
            ("jdbc:postgresql://u:p@one/x,postgresql://u:p@two/y", "jdbc:postgresql://one/x,postgresql://two/y"),
            ("Unknown resource: ssh://me:secret@host and so on @home", "Unknown resource: ssh://host and so on @home"),
            ("https://host/@somebody", "https://host/@somebody"),
            ("https://host?to=me@home", "https://host?to=me@home"),
            ("mail@home", "mail@home"),
            // What a password must not hold, and does.
            ("postgres://app:pa#ss@db/x", "postgres://[redacted]@db/x"),
            ("postgres://app:pa?ss@db/x", "postgres://[redacted]@db/x"),
            ("postgres://app:pa/ss@db/x", "postgres://[redacted]@db/x"),
            ("postgres://app:pa ss@db/x", "postgres://[redacted]@db/x"),
            ("postgres://app:pa\\ss@db/x", "postgres://[redacted]@db/x"),
            ("postgres://app:#p/a s@s?@db/x", "postgres://[redacted]@db/x"),
            ("postgres://app:/secret@db/x", "postgres://[redacted]@db/x"),
            ("postgres://app:1234#5@db/x", "postgres://[redacted]@db/x"),
            ("postgres://app:a://b@db/x", "postgres://[redacted]@db/x"),
            ("//app:pa/ss@db/x", "//[redacted]@db/x"),
            ("Unknown resource: amqp://app:pa ss@mq", "Unknown resource: amqp://[redacted]@mq"),
            // What others may hold, and keep.
            ("https://host/users/@me:1", "https://host/users/@me:1"),
            ("https://host:8443/@scope/package", "https://host:8443/@scope/package"),
            ("https://[::1]:8443/@me and [::1]", "https://[::1]:8443/@me and [::1]"),
            ("https://[2001:db8::1]/a@b", "https://[2001:db8::1]/a@b"),
            ("cannot reach http://host:8080 for me@home", "cannot reach http://host:8080 for me@home"),
            ("https://host/a?at=12:30&to=me@home", "https://host/a?at=12:30&to=me@home"),
            ("file:///a:b/c@d", "file:///a:b/c@d"),
            ("mailto:a@b", "mailto:a@b"),
            ("urn:x:y#z@w", "urn:x:y#z@w"),
            ("://@", "://"),
            ("", ""),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn a_secret_in_a_name_is_shown_as_its_kind() {
        for text in [
            TOKEN.to_owned(),
            format!("read.{TOKEN}"),
            format!("Unknown tool: files__{TOKEN}"),
            format!("file:///home/{TOKEN}/notes \"x\" \u{e9}"),
            format!("https://host/x?token={TOKEN}#y"),
            format!("https://{TOKEN}:x@host/"),
        ] {
            let shown = shown(&text);
            assert!(!shown.contains("A7dK2mQ9"), "{shown}");
        }
        let label = |text: &str, action| Label::of(&Arc::from(text), action).to_string();
        assert_eq!(label(&format!("a://b/{TOKEN}/c"), None), "a://b/[redacted:github-token]/c");
        // As the detectors of the traffic do: see `/name` and `/uri`, and `/ref/name`.
        assert_eq!(label(RANDOM, Some(Action::PromptGet)), RANDOM);
        assert_eq!(label(RANDOM, Some(Action::CompletionComplete)), "[redacted:high-entropy]");
    }

    #[test]
    fn what_nobody_looks_through_is_not_shown() {
        let long = "__key=".repeat(20_000);
        let (word, words) = (format!("made/{}", "up".repeat(100)), "a word ".repeat(290));
        for (text, expected) in [
            (long.clone(), TOO_LONG.to_owned()),
            (format!("Unknown tool: {TOKEN} {long}"), "Unknown tool: [redacted:github-token] [too long]".to_owned()),
            (format!("{words}{TOKEN} {TOKEN}"), format!("{words}[too long]")),
            (word.clone(), word.clone()),
        ] {
            assert_eq!(shown(&text), expected, "{text}");
            assert_eq!(*Label::of(&Arc::from(text), None), *expected);
        }
        assert_eq!((method(&word), method("made/up")), (TOO_LONG.into(), "made/up".into()));
        assert!(!method(&format!("a/{TOKEN}")).contains(TOKEN));
    }

    #[test]
    fn a_name_is_looked_at_once_and_not_before_it_is_shown() {
        let secret = Label::of(&Arc::from(TOKEN), None);
        assert!(secret.shown.get().is_none());
        let first = secret.as_ptr();
        assert!(!secret.contains("A7dK2mQ9") && secret.as_ptr() == first);
        // An ordinary name is not copied.
        let name = Arc::from("files__read_file");
        assert_eq!(Label::of(&name, None).as_ptr(), name.as_ptr());
    }

    #[test]
    fn what_is_no_secret_is_shown_as_it_is() {
        for text in [
            "read_file",
            "files/../etc",
            "file:///a/9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "ui://weather/forecast?city=Z\u{fc}rich&day=2",
            "git://host/repository.git#8843d7f92416211de9ebb963ff4ce28125932878",
            "urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
        ] {
            assert!(matches!(shown(text), Cow::Borrowed(_)), "{text} became {}", shown(text));
        }
    }
}
