//! What the client writes: one message a line, from standard input.
//!
//! Keeps at most one line in memory. Of a line that is longer than a message may be it still learns who waits for an
//! answer, without keeping it. Never judges what a line says.

use bytes::Bytes;
use std::{
    io::{self, BufRead, ErrorKind},
    thread,
};
use tokio::sync::mpsc;

/// The longest line, in bytes.
pub(super) const LONGEST: usize = 16 << 20;
/// Lines that wait to be taken.
const AHEAD: usize = 8;
/// The longest id or key that is looked at, in bytes.
const WORD: usize = 512;

/// A line.
#[derive(Debug)]
pub(super) enum Line {
    /// It, without its end.
    Text(Bytes),
    /// One that was not kept.
    TooLong(Skim),
}

/// Reads standard input on a thread of its own: a read of a pipe cannot be given up, and nothing may wait for it when
/// the program ends. The channel closes at the end of the input.
pub(super) fn from_stdin() -> io::Result<mpsc::Receiver<Line>> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        let read = read(io::stdin().lock(), |line| sender.blocking_send(line).is_ok());
        if let Err(fault) = read {
            tracing::warn!(%fault, "standard input cannot be read");
        }
    })?;
    Ok(receiver)
}

/// Reads lines until the input ends or `give` wants no more.
fn read(mut input: impl BufRead, mut give: impl FnMut(Line) -> bool) -> io::Result<()> {
    let mut line = Vec::new();
    let mut skim: Option<Skim> = None;
    loop {
        let chunk = match input.fill_buf() {
            Ok(chunk) => chunk,
            Err(fault) if fault.kind() == ErrorKind::Interrupted => continue,
            Err(fault) => return Err(fault),
        };
        let is_last = chunk.is_empty();
        let end = chunk.iter().position(|byte| *byte == b'\n');
        let part = chunk.get(..end.unwrap_or(chunk.len())).unwrap_or_default();
        match &mut skim {
            Some(skim) => skim.push(part),
            None if line.len() + part.len() > LONGEST => {
                let mut started = Skim::default();
                started.push(&line);
                started.push(part);
                line = Vec::new();
                skim = Some(started);
            }
            None => line.extend_from_slice(part),
        }
        let used = end.map_or(chunk.len(), |end| end + 1);
        input.consume(used);
        if is_last || end.is_some() {
            let given = match skim.take() {
                Some(skim) => Some(Line::TooLong(skim)),
                None if line.trim_ascii().is_empty() => None,
                None => Some(Line::Text(Bytes::from(std::mem::take(&mut line)))),
            };
            line.clear();
            if given.is_some_and(|given| !give(given)) || is_last {
                return Ok(());
            }
        }
    }
}

/// What can be said of a text that cannot be read: the `id` of its object and whether it has a `method`.
#[derive(Debug, Default)]
pub(super) struct Skim {
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// The key whose value is being read, as written.
    key: Vec<u8>,
    /// The string, number or word that is being read in the outermost object.
    word: Vec<u8>,
    id: Option<String>,
    has_method: bool,
}

impl Skim {
    /// Skims a whole text.
    pub(super) fn of(text: &[u8]) -> Self {
        let mut skim = Self::default();
        skim.push(text);
        skim
    }

    /// The raw id, if it has one that an answer can carry.
    pub(super) fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Whether it asks for something; what has an id and does not is an answer.
    pub(super) const fn has_method(&self) -> bool {
        self.has_method
    }

    fn push(&mut self, text: &[u8]) {
        for byte in text {
            self.step(*byte);
        }
    }

    fn step(&mut self, byte: u8) {
        if self.in_string {
            self.keep(byte);
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return;
        }
        match byte {
            b'"' => {
                self.in_string = true;
                self.keep(byte);
            }
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                self.end_member();
                self.depth = self.depth.saturating_sub(1);
            }
            b',' => self.end_member(),
            b':' if self.depth == 1 => self.key = std::mem::take(&mut self.word),
            b' ' | b'\t' | b'\r' | b'\n' => {}
            _ => self.keep(byte),
        }
    }

    fn keep(&mut self, byte: u8) {
        if self.depth == 1 && self.word.len() <= WORD {
            self.word.push(byte);
        }
    }

    fn end_member(&mut self) {
        if self.depth != 1 {
            return;
        }
        let (key, word) = (std::mem::take(&mut self.key), std::mem::take(&mut self.word));
        match key.as_slice() {
            b"\"method\"" => self.has_method = true,
            b"\"id\"" if word.len() <= WORD && matches!(word.first(), Some(b'"' | b'-' | b'0'..=b'9')) => {
                let is_whole = mcp::scan_value(&word, &mcp::Limits::default()).is_ok();
                self.id = String::from_utf8(word).ok().filter(|_| is_whole);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &[u8]) -> Vec<Line> {
        let mut lines = Vec::new();
        // A small buffer: lines come in pieces.
        read(io::BufReader::with_capacity(7, text), |line| {
            lines.push(line);
            true
        })
        .unwrap();
        lines
    }

    #[test]
    fn lines_come_whole_and_blank_ones_do_not() {
        let texts: Vec<_> = lines(b"{\"a\": 1}\r\n\n  \n[2]\n{\"last\": true}")
            .into_iter()
            .map(|line| match line {
                Line::Text(text) => text,
                Line::TooLong(_) => panic!("none is too long"),
            })
            .collect();
        assert_eq!(texts, [&b"{\"a\": 1}\r"[..], b"[2]", b"{\"last\": true}"]);
    }

    #[test]
    fn a_line_that_is_too_long_still_says_who_waits() {
        let filler = "x".repeat(LONGEST);
        let text = format!("{{\"method\":\"a\",\"params\":{{\"id\":1,\"t\":\"{filler}\"}},\"id\":\"q\\\"7\"}}\n{{}}\n");
        let lines = lines(text.as_bytes());
        let [Line::TooLong(skim), Line::Text(next)] = lines.as_slice() else { panic!("{}", lines.len()) };
        assert_eq!((skim.id(), skim.has_method(), &next[..]), (Some("\"q\\\"7\""), true, &b"{}"[..]));
    }

    #[test]
    fn skimming_finds_the_id_of_the_outermost_object_alone() {
        for (text, id, has_method) in [
            (r#"{"id": 7 , "method":"x"}"#, Some("7"), true),
            (r#"{"method":"x","params":{"id":3},"id":-1}"#, Some("-1"), true),
            (r#"{"id":4,"result":{"method":"x"}}"#, Some("4"), false),
            (r#"{"params":["id",{"id":9}],"method":"x"}"#, None, true),
            (r#"{"id":null,"method":"x"}"#, None, true),
            (r#"{"id":{"id":1},"method":"x"}"#, None, true),
            (r#"[{"id":1,"method":"x"}]"#, None, false),
            (r#"{"text":"\",\"id\":5,","method":"x"}"#, None, true),
            (r#"{"id":12"#, None, false),
            ("}}}]],,::", None, false),
        ] {
            let skim = Skim::of(text.as_bytes());
            assert_eq!((skim.id(), skim.has_method()), (id, has_method), "{text}");
        }
    }
}
