//! What the client writes: one message a line, from standard input.
//!
//! Keeps at most one line in memory. Of a line that is longer than a message may be it still learns who waits for an
//! answer, without keeping it. Never judges what a line says.

use bytes::Bytes;
use mcp::Skim;
use std::{
    io::{self, BufRead, ErrorKind},
    thread,
};
use tokio::sync::mpsc;

/// The longest line, in bytes.
pub(super) const LONGEST: usize = 16 << 20;
/// Lines that wait to be taken.
const AHEAD: usize = 8;

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
}
