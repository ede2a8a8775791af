//! The lines of one event.

use super::Event;
use crate::text::line_run;
use bytes::Bytes;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Reads the fields of an event (§9.2.6). `first` is the one that may begin with a byte order mark.
pub(super) fn parse(raw: Bytes, first: bool) -> Event {
    let mut event = Event { marked: first && raw.starts_with(BYTE_ORDER_MARK), ..Event::default() };
    let mut joined: Option<Vec<u8>> = None;
    for line in Lines::new(unmarked(&raw, event.marked)) {
        let value = || raw.slice_ref(line.value);
        event.has_beside |= !matches!((line.field, line.value), (b"data", _) | (b"event", b"message"));
        match line.field {
            b"data" => match (&mut event.data, &mut joined) {
                (None, _) => event.data = Some(value()),
                (Some(only), None) => joined = Some([only, b"\n".as_slice(), line.value].concat()),
                (Some(_), Some(joined)) => {
                    joined.push(b'\n');
                    joined.extend_from_slice(line.value);
                }
            },
            b"id" if !line.value.contains(&0) => event.id = Some(value()),
            b"event" => event.event = Some(value()),
            b"retry" => {
                let digits = !line.value.is_empty() && line.value.iter().all(u8::is_ascii_digit);
                let text = std::str::from_utf8(line.value).ok().filter(|_| digits);
                event.retry = text.and_then(|text| text.parse().ok()).or(event.retry);
            }
            _ => {}
        }
    }
    if let Some(joined) = joined {
        event.data = Some(Bytes::from(joined));
    }
    event.raw = raw;
    event
}

/// The event with other data. Id, type, retry time and comments keep their bytes and their order; an event without data
/// keeps all of them.
pub fn replace_data(event: &Event, data: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(event.raw.len() + data.len());
    let mut done = false;
    let mut rest = unmarked(&event.raw, event.marked);
    out.extend_from_slice(event.raw.get(..event.raw.len() - rest.len()).unwrap_or_default());
    while !rest.is_empty() {
        let (line, ending, tail) = cut(rest);
        rest = tail;
        if field(line).0 != b"data" {
            // Where a data line between them is gone, a CR and the blank line's LF must not become one line end.
            if line.is_empty() && ending == b"\n" && out.ends_with(b"\r") {
                out.push(b'\n');
            }
            out.extend_from_slice(line);
            out.extend_from_slice(ending);
        } else if !std::mem::replace(&mut done, true) {
            write_data(&mut out, data, ending);
        }
    }
    Bytes::from(out)
}

/// The event under an id that begins with `prefix`; as it is where it has none. An empty id, which makes the client
/// forget the last one, stays empty.
pub fn prefix_id(event: &Event, prefix: &str) -> Event {
    let mut out = Vec::with_capacity(event.raw.len() + prefix.len());
    let mut rest = unmarked(&event.raw, event.marked);
    out.extend_from_slice(event.raw.get(..event.raw.len() - rest.len()).unwrap_or_default());
    while !rest.is_empty() {
        let (line, ending, tail) = cut(rest);
        rest = tail;
        match field(line) {
            (b"id", value) if !value.is_empty() => {
                out.extend_from_slice(b"id: ");
                out.extend_from_slice(prefix.as_bytes());
                out.extend_from_slice(value);
            }
            _ => out.extend_from_slice(line),
        }
        out.extend_from_slice(ending);
    }
    let id = event.id.as_ref().filter(|id| !id.is_empty()).map(|id| Bytes::from([prefix.as_bytes(), id].concat()));
    Event { raw: Bytes::from(out), id: id.or_else(|| event.id.clone()), ..event.clone() }
}

/// What stands beside the data of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beside<'a> {
    /// Its id.
    Id(&'a [u8]),
    /// Any other line, whole: a comment, a type, a field that nobody knows.
    Line(&'a [u8]),
}

/// The event with other texts beside its data: what `judge` gives for each of them, where it gives something. Nothing of a text
/// leaves an empty comment. `None` where all stay.
pub fn replace_beside(event: &Event, mut judge: impl FnMut(Beside<'_>) -> Option<Vec<u8>>) -> Option<Event> {
    let mut out = Vec::with_capacity(event.raw.len());
    let mut changed = false;
    let mut rest = unmarked(&event.raw, event.marked);
    out.extend_from_slice(event.raw.get(..event.raw.len() - rest.len()).unwrap_or_default());
    while !rest.is_empty() {
        let (line, ending, tail) = cut(rest);
        rest = tail;
        let (head, judged) = match field(line) {
            _ if line.is_empty() => (b"".as_slice(), None),
            (b"data", _) => (b"".as_slice(), None),
            (b"id", value) => (b"id: ".as_slice(), judge(Beside::Id(value))),
            _ => (b"".as_slice(), judge(Beside::Line(line))),
        };
        changed |= judged.is_some();
        match judged {
            None => out.extend_from_slice(line),
            // A line without anything would end the event.
            Some(text) if text.is_empty() => out.push(b':'),
            Some(text) => {
                out.extend_from_slice(head);
                // SECURITY: a line break would begin another field.
                out.extend(text.into_iter().filter(|byte| !matches!(byte, b'\n' | b'\r')));
            }
        }
        out.extend_from_slice(ending);
    }
    changed.then(|| parse(Bytes::from(out), event.marked))
}

/// An event of our own.
pub fn encode(data: &[u8], id: Option<&str>) -> Bytes {
    let mut out = Vec::with_capacity(data.len() + 64);
    if let Some(id) = id {
        out.extend_from_slice(b"id: ");
        // SECURITY: a line break would begin another field.
        out.extend(id.bytes().filter(|byte| !matches!(byte, b'\n' | b'\r' | 0)));
        out.push(b'\n');
    }
    write_data(&mut out, data, b"\n");
    out.push(b'\n');
    Bytes::from(out)
}

/// Writes data lines. A line break in the data, which in JSON is a blank, begins another one.
fn write_data(out: &mut Vec<u8>, data: &[u8], ending: &[u8]) {
    let mut rest = data;
    loop {
        let (line, broken, tail) = cut(rest);
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(line);
        out.extend_from_slice(ending);
        if broken.is_empty() {
            return;
        }
        rest = tail;
    }
}

/// An event without the byte order mark it may begin with.
fn unmarked(raw: &[u8], marked: bool) -> &[u8] {
    if marked { raw.strip_prefix(BYTE_ORDER_MARK).unwrap_or(raw) } else { raw }
}

/// One line; that of a comment has an empty field.
struct Line<'a> {
    field: &'a [u8],
    value: &'a [u8],
}

/// The lines of an event, blank ones left out.
struct Lines<'a> {
    rest: &'a [u8],
}

impl<'a> Lines<'a> {
    const fn new(text: &'a [u8]) -> Self {
        Self { rest: text }
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = Line<'a>;

    fn next(&mut self) -> Option<Line<'a>> {
        while !self.rest.is_empty() {
            let (line, _, rest) = cut(self.rest);
            self.rest = rest;
            if !line.is_empty() {
                let (field, value) = field(line);
                return Some(Line { field, value });
            }
        }
        None
    }
}

/// Field and value of a line; a comment has an empty field. One space after the colon does not count.
fn field(line: &[u8]) -> (&[u8], &[u8]) {
    let Some(colon) = line.iter().position(|byte| *byte == b':') else { return (line, b"") };
    let (field, value) = line.split_at_checked(colon).unwrap_or((line, b""));
    let value = value.strip_prefix(b":").unwrap_or(value);
    (field, value.strip_prefix(b" ").unwrap_or(value))
}

/// The first line, what ends it (nothing at the end of the text), and the rest.
fn cut(text: &[u8]) -> (&[u8], &[u8], &[u8]) {
    let length = line_run(text);
    let (line, rest) = text.split_at_checked(length).unwrap_or((text, b""));
    let ending = match rest {
        [b'\r', b'\n', ..] => 2,
        [] => 0,
        [_, ..] => 1,
    };
    let (ending, rest) = rest.split_at_checked(ending).unwrap_or((rest, b""));
    (line, ending, rest)
}
