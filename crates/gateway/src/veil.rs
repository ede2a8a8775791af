//! Hides from what a server says the credential that it was given.
//!
//! SECURITY: the gateway's own secret, so that no setting switches this off, and it comes before everything else that reads
//! an answer: lists, catalogs, records, streams. Lives as long as the exchange, or the process, that has the credential.

use crate::inspect;
use base64::{Engine as _, prelude::BASE64_STANDARD, prelude::BASE64_STANDARD_NO_PAD, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use guard::{Carry, Detector, Guards, Match, Mode, Setting, Verdict};
use mcp::{
    Message,
    sse::{Decoder, Event, replace_data},
};
use memchr::memmem;
use std::{
    cmp::Reverse,
    sync::{Arc, LazyLock},
};
use vocab::{Finding, Secret, Side};

/// Shorter values are not hidden: they would be found in ordinary text.
const LEAST: usize = 8;
const KIND: &str = "credential";
const MASK: &[u8] = b"[redacted:credential]";

/// The values that one server was given, as they may be written.
#[derive(Debug)]
pub(crate) struct Veil {
    words: Arc<Words>,
    guards: Guards,
}

/// The longest first: one that contains another is hidden whole.
#[derive(Debug)]
struct Words {
    list: Vec<Secret<String>>,
    /// JSON writes some letter of them with an escape.
    escaped: bool,
}

impl Veil {
    /// None where there is nothing to hide.
    pub(crate) fn of<'a>(secrets: impl Iterator<Item = &'a Secret<String>>) -> Option<Arc<Self>> {
        let mut list = Vec::new();
        for secret in secrets {
            for piece in pieces([secret], LEAST) {
                spell(piece.expose(), &mut list);
                list.push(piece);
            }
        }
        list.retain(|word| word.expose().len() >= LEAST);
        if list.is_empty() {
            return None;
        }
        longest_first(&mut list);
        let escaped =
            list.iter().any(|word| word.expose().contains(|c: char| !c.is_ascii_graphic() || "\"\\/".contains(c)));
        let words = Arc::new(Words { list, escaped });
        let setting = Setting { results: Mode::Mask, arguments: Mode::Mask };
        let guards = Guards::only(Arc::<Words>::clone(&words), setting);
        Some(Arc::new(Self { words, guards }))
    }

    /// A body that comes alone, without the credential. Most hold none, which a look shows.
    pub(crate) fn body(&self, body: Bytes) -> Bytes {
        if self.words.may_be_in(&body) { self.message(body, &mut Carry::default()) } else { body }
    }

    /// A message of a stream, without the credential: also where it goes on with what an earlier one began.
    pub(crate) fn message(&self, message: Bytes, carry: &mut Carry) -> Bytes {
        let message = match self.guards.release(&message, carry).verdict {
            Verdict::Masked(masked) => masked.into(),
            // What is no JSON is looked at as it is.
            Verdict::Clean | Verdict::Refused => message,
        };
        self.text(message)
    }

    /// An event, whole: with its id and its comments.
    pub(crate) fn event(&self, event: Event, carry: &mut Carry) -> Event {
        // What a server of 2024-11-05 is posted to may hold what it was asked with, and is said to nobody.
        if event.event.as_deref() == Some(b"endpoint")
            && event.data.as_ref().is_some_and(|data| mcp::value(data).is_err())
        {
            return event;
        }
        // Of whatever type it is: what clients pass over may be read all the same.
        let masked = event.data.as_ref().map(|data| self.message(data.clone(), carry));
        let raw = match masked.filter(|masked| event.data.as_ref() != Some(masked)) {
            Some(masked) => replace_data(&event, &masked),
            None => event.raw.clone(),
        };
        let raw = self.text(raw);
        if raw == event.raw {
            return event;
        }
        let (mut decoder, mut read) = (Decoder::new(usize::MAX), Vec::new());
        // It is as long as it is.
        let _ = decoder.push(raw, &mut read);
        read.pop().or_else(|| decoder.finish().0).unwrap_or_default()
    }

    /// Whether a text holds the credential.
    pub(crate) fn is_in(&self, text: &[u8]) -> bool {
        self.words.are_in(text)
    }

    /// A text that need not be JSON. Where JSON is broken by it the credential stood where none can be, as a number.
    fn text(&self, text: Bytes) -> Bytes {
        if !self.words.are_in(&text) {
            return text;
        }
        let mut text = text.to_vec();
        for word in &self.words.list {
            let mut out = Vec::with_capacity(text.len());
            let mut rest = text.as_slice();
            while let Some((before, after)) = split(rest, word.expose().as_bytes()) {
                out.extend_from_slice(before);
                out.extend_from_slice(MASK);
                rest = after;
            }
            out.extend_from_slice(rest);
            text = out;
        }
        text.into()
    }
}

impl Words {
    fn are_in(&self, text: &[u8]) -> bool {
        self.list.iter().any(|word| memmem::find(text, word.expose().as_bytes()).is_some())
    }

    /// Whether they may be in a JSON text, in whatever way that is written.
    fn may_be_in(&self, json: &[u8]) -> bool {
        self.are_in(json)
            || memmem::find(json, b"\\u00").is_some()
            || memmem::find(json, b"\"blob\"").is_some()
            || (self.escaped && memchr::memchr(b'\\', json).is_some())
    }
}

impl Detector for Words {
    fn family(&self) -> &'static str {
        KIND
    }

    fn may_find(&self, json: &str) -> bool {
        self.may_be_in(json.as_bytes())
    }

    fn find(&self, text: &str, found: &mut Vec<Match>) {
        for word in &self.list {
            let starts = memmem::find_iter(text.as_bytes(), word.expose().as_bytes());
            found.extend(starts.map(|start| Match { kind: KIND, span: start..start + word.expose().len() }));
        }
    }
}

/// Where the credential was hidden in a message, for the record. Messages share processes and streams, and are veiled before
/// anybody knows whose they are: what is left of it is looked for. A server that writes the mask itself is believed.
pub(crate) fn hidden(message: &Message) -> Vec<Finding> {
    if memmem::find(message.bytes(), MASK).is_none() {
        return Vec::new();
    }
    let found = inspect::message(message, |text, _| SEEN.release(text, &mut Carry::default())).findings;
    if found.is_empty() { vec![somewhere()] } else { found }
}

/// The same for what is no message.
pub(crate) fn hidden_in(text: &[u8]) -> Option<Finding> {
    memmem::find(text, MASK).map(|_| somewhere())
}

fn somewhere() -> Finding {
    Finding { detector: Arc::from(KIND), kind: Arc::from(KIND), pointer: Arc::from(""), side: Side::Result }
}

/// Finds what is left of the credential, and changes nothing.
static SEEN: LazyLock<Guards> =
    LazyLock::new(|| Guards::only(Arc::new(Masks), Setting { results: Mode::Report, arguments: Mode::Report }));

struct Masks;

impl Detector for Masks {
    fn family(&self) -> &'static str {
        KIND
    }

    fn may_find(&self, json: &str) -> bool {
        memmem::find(json.as_bytes(), MASK).is_some()
    }

    fn find(&self, text: &str, found: &mut Vec<Match>) {
        let starts = memmem::find_iter(text.as_bytes(), MASK);
        found.extend(starts.map(|start| Match { kind: KIND, span: start..start + MASK.len() }));
    }
}

/// What must not be shown of secrets: each line of each that is long enough.
pub(crate) fn pieces<'a>(secrets: impl IntoIterator<Item = &'a Secret<String>>, least: usize) -> Vec<Secret<String>> {
    let lines = secrets.into_iter().flat_map(|secret| secret.expose().lines());
    let lines = lines.map(str::trim).filter(|line| line.len() >= least);
    let mut pieces: Vec<_> = lines.map(|line| Secret::new(line.to_owned())).collect();
    longest_first(&mut pieces);
    pieces
}

fn longest_first(list: &mut Vec<Secret<String>>) {
    list.sort_by(|a, b| (Reverse(a.expose().len()), a.expose()).cmp(&(Reverse(b.expose().len()), b.expose())));
    list.dedup_by(|a, b| a.expose() == b.expose());
}

/// The other ways in which a value is written on its way: in an address, in base64, and what a scheme is followed by.
fn spell(value: &str, list: &mut Vec<Secret<String>>) {
    let form: String = url::form_urlencoded::byte_serialize(value.as_bytes()).collect();
    list.push(Secret::new(form.replace('+', "%20")));
    list.push(Secret::new(form));
    // Without padding it is found with it, too.
    list.push(Secret::new(BASE64_STANDARD_NO_PAD.encode(value)));
    list.push(Secret::new(BASE64_URL_SAFE_NO_PAD.encode(value)));
    let Some((scheme, rest)) =
        value.split_once(' ').filter(|(scheme, _)| scheme.bytes().all(|b| b.is_ascii_alphabetic()))
    else {
        return;
    };
    list.push(Secret::new(rest.to_owned()));
    let pair = if scheme.eq_ignore_ascii_case("basic") { BASE64_STANDARD.decode(rest).ok() } else { None };
    if let Some(pair) = pair.and_then(|pair| String::from_utf8(pair).ok()) {
        list.extend(pair.split_once(':').map(|(_, password)| Secret::new(password.to_owned())));
        list.push(Secret::new(pair));
    }
}

fn split<'t>(text: &'t [u8], word: &[u8]) -> Option<(&'t [u8], &'t [u8])> {
    let start = memmem::find(text, word)?;
    Some((text.get(..start)?, text.get(start + word.len()..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn veil(values: &[&str]) -> Arc<Veil> {
        let secrets: Vec<_> = values.iter().map(|value| Secret::new((*value).to_owned())).collect();
        Veil::of(secrets.iter()).expect("there is something to hide")
    }

    fn body(veil: &Veil, text: &str) -> String {
        String::from_utf8(veil.body(Bytes::copy_from_slice(text.as_bytes())).to_vec()).unwrap()
    }

    #[test]
    fn a_credential_is_hidden_however_it_is_written() {
        let (plain, odd, pair) = ("canary-5d1f77", "a/b \"c\" é+d", "Basic dXNlcjpjYW5hcnktOWUxYg==");
        let veil = veil(&[plain, odd, pair]);
        let blob = BASE64_STANDARD.encode(format!("key {plain}"));
        let letters = plain.chars().fold(String::new(), |text, c| text + &format!("\\u{:04X}", u32::from(c)));
        let inner = serde_json::json!({"inner": odd}).to_string();
        for (json, hidden) in [
            (r#"{"text":"x canary-5d1f77 y"}"#.to_owned(), r#"{"text":"x [redacted:credential] y"}"#),
            (format!(r#"{{"text":"{letters}"}}"#), r#"{"text":"[redacted:credential]"}"#),
            (format!(r#"{{"blob":"{blob}"}}"#), r#"{"blob":"a2V5IFtyZWRhY3RlZDpjcmVkZW50aWFsXQ=="}"#),
            (serde_json::json!({ "text": odd }).to_string(), r#"{"text":"[redacted:credential]"}"#),
            (r#"{"text":"a\/b \u0022c\u0022 \u00e9\u002Bd"}"#.to_owned(), r#"{"text":"[redacted:credential]"}"#),
            (serde_json::json!({ "text": inner }).to_string(), r#"{"text":"{\"inner\":\"[redacted:credential]\"}"}"#),
            (r#"{"text":"?k=a%2Fb+%22c%22+%C3%A9%2Bd"}"#.to_owned(), r#"{"text":"?k=[redacted:credential]"}"#),
            (r#"{"text":"dXNlcjpjYW5hcnktOWUxYg=="}"#.to_owned(), r#"{"text":"[redacted:credential]"}"#),
            (r#"{"text":"user:canary-9e1b"}"#.to_owned(), r#"{"text":"[redacted:credential]"}"#),
            (r#"{"canary-5d1f77":"canary-9e1b"}"#.to_owned(), r#"{"[redacted:credential]":"[redacted:credential]"}"#),
            ("no JSON: canary-5d1f77".to_owned(), "no JSON: [redacted:credential]"),
        ] {
            assert_eq!(body(&veil, &json), hidden, "{json}");
        }
        let other = r#"{"text":"canary-5d1f7 \u0041 \/","blob":"AAAA"}"#;
        assert_eq!(body(&veil, other), other);
    }

    #[test]
    fn a_credential_that_is_split_over_events_is_hidden_from_the_second_on() {
        let (veil, mut carry) = (veil(&["canary-5d1f77"]), Carry::default());
        let mut say = |raw: &'static str| {
            let mut events = Vec::new();
            Decoder::new(1000).push(Bytes::from_static(raw.as_bytes()), &mut events).unwrap();
            let event = veil.event(events.remove(0), &mut carry);
            String::from_utf8(event.raw.to_vec()).unwrap()
        };
        let first = "id: 1\ndata: {\"params\":{\"message\":\"key cana\"}}\n\n";
        assert_eq!(say(first), first);
        let second = "id: 2\ndata: {\"result\":{\"content\":[{\"text\":\"ry-5d1f77!\"}]}}\n\n";
        assert_eq!(say(second), second.replace("ry-5d1f77", "[redacted:credential]"));
        assert_eq!(
            say(": canary-5d1f77\nid: canary-5d1f77\n\n"),
            ": [redacted:credential]\nid: [redacted:credential]\n\n"
        );
    }

    #[test]
    fn where_a_server_of_2024_is_posted_to_stays_and_nothing_else_passes_for_it() {
        let veil = veil(&["canary-5d1f77"]);
        for (data, hidden) in [
            ("/messages?key=canary-5d1f77", "/messages?key=canary-5d1f77"),
            (r#"{"text":"canary-5d1f77"}"#, r#"{"text":"[redacted:credential]"}"#),
        ] {
            let mut events = Vec::new();
            let raw = format!("event: endpoint\ndata: {data}\n\n");
            Decoder::new(1000).push(raw.clone().into(), &mut events).unwrap();
            let event = veil.event(events.remove(0), &mut Carry::default());
            assert_eq!(event.raw, raw.replace(data, hidden));
            assert_eq!(event.data.as_deref(), Some(hidden.as_bytes()));
        }
    }

    #[test]
    fn short_values_hide_nothing() {
        let short = [Secret::new("short".to_owned()), Secret::new("one\ntwo".to_owned())];
        assert!(Veil::of(short.iter()).is_none());
    }
}
