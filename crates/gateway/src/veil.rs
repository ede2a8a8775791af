//! Hides from what a server says the credential that it was given.
//!
//! SECURITY: the gateway's own secret, so that no setting switches this off, and it comes before everything else that reads
//! an answer: lists, catalogs, records, streams. Lives as long as the exchange, or the process, that has the credential.

mod words;

pub(crate) use words::Words;

use crate::inspect;
use bytes::Bytes;
use guard::{Carry, Detector, Guards, Match, Mode, Setting, Verdict};
use mcp::{
    Message,
    sse::{Decoder, Event, replace_data},
};
use memchr::memmem;
use std::{
    ops::Range,
    sync::{Arc, LazyLock},
};
use vocab::{Finding, Secret, Side};
use words::KIND;

/// Shorter values are not hidden: they would be found in ordinary text.
const LEAST: usize = 8;
const MASK: &[u8] = b"[redacted:credential]";

/// The values that one server was given, as they may be written.
#[derive(Debug)]
pub(crate) struct Veil {
    words: Arc<Words>,
    guards: Guards,
}

impl Veil {
    /// None where there is nothing to hide.
    pub(crate) fn of<'a>(secrets: impl Iterator<Item = &'a Secret<String>>) -> Option<Arc<Self>> {
        let words = Arc::new(Words::of(secrets, LEAST)?);
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
        match self.guards.release(&message, carry).verdict {
            Verdict::Clean => self.text(message),
            Verdict::Masked(masked) => self.text(masked.into()),
            Verdict::Refused => self.other(message),
        }
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
        let spans = self.words.spans(&text);
        cover(text, spans)
    }

    /// What is no JSON, or too large to be looked into. It may hold JSON all the same, or quote some.
    fn other(&self, text: Bytes) -> Bytes {
        let spans = match std::str::from_utf8(&text) {
            Ok(text) => guard::search(&*self.words, text).into_iter().map(|found| found.span).collect(),
            Err(_) => self.words.spans(&text),
        };
        cover(text, spans)
    }
}

/// Puts the mask over ranges, which are in order. Those that overlap become one.
fn cover(text: Bytes, spans: Vec<Range<usize>>) -> Bytes {
    if spans.is_empty() {
        return text;
    }
    let (mut out, mut at) = (Vec::with_capacity(text.len()), 0);
    for span in spans {
        if span.start >= at {
            out.extend_from_slice(text.get(at..span.start).unwrap_or_default());
            out.extend_from_slice(MASK);
        }
        at = at.max(span.end);
    }
    out.extend_from_slice(text.get(at..).unwrap_or_default());
    out.into()
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

#[cfg(test)]
mod tests {
    use super::*;
    use base64::{Engine as _, prelude::BASE64_STANDARD};

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
            (format!("no JSON but {}", serde_json::json!([odd])), r#"no JSON but ["[redacted:credential]"]"#),
        ] {
            assert_eq!(body(&veil, &json), hidden, "{json}");
        }
        let other = r#"{"text":"canary-5d1f7 \u0041 \/","blob":"AAAA"}"#;
        assert_eq!(body(&veil, other), other);
    }

    #[test]
    fn a_credential_is_hidden_whatever_is_percent_encoded_of_it() {
        let veil = veil(&["CREDab/cd+efgh=123456", "Token a b/é+%41x", "Basic dXNlcjpjYW5hcnkvOWUxYg=="]);
        for written in [
            "CREDab%2Fcd%2Befgh%3D123456",
            // Python leaves the slash, .NET writes small digits, scripts leave what they do not know.
            "CREDab/cd%2Befgh%3D123456",
            "CREDab%2fcd%2befgh%3d123456",
            "CREDab%2Fcd+efgh%3d123456",
            "%43%52ED%61b/cd+efgh=12345%36",
            // An address in an address.
            "CREDab%252Fcd%252Befgh%253D123456",
            // Its base64, and what follows its scheme.
            "Q1JFRGFiL2NkK2VmZ2g9MTIzNDU2",
            "a+b%2F%C3%A9%2B%2541x",
            "a%20b%2f%c3%a9%2b%2541x",
            "a b/é%2B%2541x",
            "dXNlcjpjYW5hcnkvOWUxYg%3D%3D",
            "user%3Acanary%2f9e1b",
        ] {
            let hidden = |text: &str, mask: &str| text.replace(written, mask).replace("%3D%3D", "");
            for text in ["%", "?k=%s&z=%20é", "100% 50%% of %zz %s %4", "%%s"] {
                let text = text.replace("%s", written);
                let text = if text == "%" { written.to_owned() } else { text };
                let json = serde_json::json!({ "text": text }).to_string();
                let masked = body(&veil, &json).replace("%3D%3D", "");
                assert_eq!(masked, hidden(&json, "[redacted:credential]"), "{json}");
                assert_eq!(body(&veil, &text).replace("%3D%3D", ""), hidden(&text, "[redacted:credential]"), "{text}");
            }
        }
        for other in ["%43%52ED%61b/cd+efgh=12345%3", "100% of CREDab%2Fcd%2Befgh%3E123456 %", "%2"] {
            let json = serde_json::json!({ "text": other }).to_string();
            assert_eq!((body(&veil, other), body(&veil, &json)), (other.to_owned(), json));
        }
    }

    #[test]
    fn a_credential_in_base64_is_hidden_also_where_something_stands_around_it() {
        for value in ["canary-5d1f77", "canary-5d1f77a", "canary-5d1f77ab"] {
            let veil = veil(&[value]);
            for before in ["", "u", "u:", "ada", "ada:", "x-access-token:"] {
                for after in ["", ":", "::", ":x-oauth"] {
                    let code = BASE64_STANDARD.encode(format!("{before}{value}{after}"));
                    let shown = body(&veil, &code);
                    let (head, tail) = shown.split_once("[redacted:credential]").unwrap_or_else(|| panic!("{shown}"));
                    let (first, end) = ((before.len() * 8).div_ceil(6), (before.len() + value.len()) * 8 / 6);
                    assert!(head.len() <= first && tail.len() <= code.len() - end, "{code}: {shown}");
                }
            }
        }
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
