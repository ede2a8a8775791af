//! The three pipes of a process: lines in, lines out, complaints into our log.

use crate::veil::Words;
use bytes::{Bytes, BytesMut};
use guard::{Match, Secrets};
use mcp::Skim;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufWriter},
    sync::mpsc,
    time::Instant,
};
use vocab::{Secret, ServerName};

/// How much of one line of complaint is kept.
const COMPLAINT: usize = 4096;
/// How much complaint is kept per window.
const COMPLAINTS: usize = 1 << 20;
/// How long until it may complain again.
const WINDOW: Duration = Duration::from_mins(10);
/// Shorter pieces of a secret are no secret, and hiding them would garble every line.
const SECRET: usize = 4;
/// The longest of most secrets that are known by their form, in bytes.
const TOKEN: usize = 512;

/// Writes lines until there are no more or the process does not take them.
pub(super) async fn write(pipe: impl AsyncWrite + Unpin, mut lines: mpsc::Receiver<Bytes>) {
    let mut pipe = BufWriter::new(pipe);
    while let Some(line) = lines.recv().await {
        let written = async {
            pipe.write_all(&line).await?;
            pipe.write_all(b"\n").await?;
            pipe.flush().await
        };
        if let Err(fault) = written.await {
            tracing::debug!(%fault, "a server process takes no more input");
            return;
        }
    }
}

/// What a process says.
#[derive(Debug)]
pub(crate) enum Line {
    /// One line, without its line break.
    Whole(Bytes),
    /// One that is too long and not over yet, but it is known already whom it answers.
    Cut(Skim),
    /// One that was too long, to its end.
    Over(Skim),
}

/// Reads lines until the end or until nobody wants them. One that is too long is dropped, but for whose it is.
pub(super) async fn read(
    pipe: impl AsyncRead + Unpin,
    lines: mpsc::Sender<Line>,
    longest: usize,
    server: ServerName,
    spoke: Arc<AtomicBool>,
) {
    let mut reader = Lines::new(pipe, longest);
    let mut skim = Skim::default();
    while let Some(piece) = reader.next().await {
        let line = match piece {
            Piece::Whole(line) if line.trim_ascii().is_empty() => continue,
            Piece::Whole(line) => {
                spoke.store(true, Ordering::Release);
                Line::Whole(line)
            }
            Piece::Cut(start) => {
                tracing::warn!(%server, longest, "the server wrote a line that is too long; it is dropped");
                skim = Skim::of(&start);
                // Its own end may never come.
                if !skim.is_answer() || skim.only_id().is_none() {
                    continue;
                }
                Line::Cut(skim.clone())
            }
            Piece::More(piece) => {
                skim.push(&piece);
                continue;
            }
            Piece::Last(piece) => {
                skim.push(&piece);
                Line::Over(std::mem::take(&mut skim))
            }
        };
        if lines.send(line).await.is_err() {
            return;
        }
    }
}

/// Puts what a process writes to standard error into our log: bounded, and without its secrets.
pub(super) async fn complain(pipe: impl AsyncRead + Unpin, server: ServerName, secrets: Vec<(String, Secret<String>)>) {
    let words = Words::of(secrets.iter().map(|(_, secret)| secret), SECRET);
    // SECURITY: as much is read as the longest secret that begins in what is shown, so that no half of one is left there.
    let mut reader = Lines::new(pipe, COMPLAINT + words.as_ref().map_or(0, Words::widest).max(TOKEN));
    let (mut left, mut until) = (COMPLAINTS, Instant::now() + WINDOW);
    while let Some(piece) = reader.next().await {
        let (Piece::Whole(line) | Piece::Cut(line)) = piece else { continue };
        if Instant::now() >= until {
            (left, until) = (COMPLAINTS, Instant::now() + WINDOW);
        }
        if left == 0 {
            continue;
        }
        let text = hide(&line, words.as_ref());
        // Printed with escapes: control characters of a server never reach a terminal.
        tracing::info!(%server, stderr = ?text, "server process");
        left = left.saturating_sub(text.len().max(64));
        if left == 0 {
            tracing::warn!(%server, "the server writes too much to standard error; the rest is dropped for a while");
        }
    }
}

/// The line without secrets, not longer than allowed.
fn hide(line: &[u8], words: Option<&Words>) -> String {
    let text = String::from_utf8_lossy(line);
    let mut found = words.map(|words| guard::search(words, &text)).unwrap_or_default();
    // What a server was given elsewhere, or was sent, is none of the vault's and a secret all the same.
    found.extend(guard::search(&Secrets, &text));
    found.sort_by_key(|found| found.span.start);
    // What is hidden may be longer than its mask: what was read beyond must not move up into what is shown.
    let end = text.floor_char_boundary(COMPLAINT);
    let (mut shown, mut at) = (String::new(), 0);
    for Match { kind, span } in found.into_iter().take_while(|found| found.span.start < end) {
        if span.start >= at {
            shown.push_str(text.get(at..span.start).unwrap_or_default());
            shown.extend(["[redacted:", kind, "]"]);
        }
        at = at.max(span.end);
    }
    shown.push_str(text.get(at..end).unwrap_or_default());
    if text.len() > end || shown.len() > COMPLAINT {
        shown.truncate(shown.floor_char_boundary(COMPLAINT));
        shown.push('…');
    }
    shown
}

/// One line, without its line break, or a piece of one that is too long.
#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Whole(Bytes),
    /// The start of a line that is too long.
    Cut(Bytes),
    /// What follows.
    More(Bytes),
    /// The end of it.
    Last(Bytes),
}

/// Splits a pipe into lines of bounded length.
struct Lines<R> {
    pipe: R,
    buffer: BytesMut,
    /// How much of the buffer has no line break.
    searched: usize,
    longest: usize,
    /// The line is too long: its start was given.
    is_cut: bool,
    over: bool,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    fn new(pipe: R, longest: usize) -> Self {
        Self { pipe, buffer: BytesMut::new(), searched: 0, longest, is_cut: false, over: false }
    }

    /// The next line, or piece; `None` at the end. A last line without a line break counts.
    async fn next(&mut self) -> Option<Piece> {
        loop {
            if let Some(line) = self.split() {
                return Some(line);
            }
            if self.over {
                return None;
            }
            self.buffer.reserve(8 * 1024);
            if matches!(self.pipe.read_buf(&mut self.buffer).await, Ok(0) | Err(_)) {
                self.over = true;
                let rest = self.buffer.split().freeze();
                return (!self.is_cut && !rest.is_empty()).then_some(Piece::Whole(rest));
            }
        }
    }

    /// A line, or a piece of one, out of what has been read.
    fn split(&mut self) -> Option<Piece> {
        let fresh = self.buffer.get(self.searched..).unwrap_or_default();
        let end = fresh.iter().position(|byte| *byte == b'\n').map(|end| self.searched + end);
        self.searched = 0;
        match end {
            Some(end) if self.is_cut || end <= self.longest => {
                let mut line = self.buffer.split_to(end + 1);
                line.truncate(end);
                let line = line.freeze();
                Some(if std::mem::take(&mut self.is_cut) { Piece::Last(line) } else { Piece::Whole(line) })
            }
            _ if self.is_cut => (!self.buffer.is_empty()).then(|| Piece::More(self.buffer.split().freeze())),
            _ if self.buffer.len() > self.longest => {
                self.is_cut = true;
                Some(Piece::Cut(self.buffer.split_to(self.longest).freeze()))
            }
            _ => {
                self.searched = self.buffer.len();
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::{Engine as _, prelude::BASE64_STANDARD};

    async fn lines(text: &[u8], longest: usize) -> Vec<String> {
        let mut reader = Lines::new(text, longest);
        let mut lines = Vec::new();
        while let Some(line) = reader.next().await {
            match line {
                Piece::Whole(line) => lines.push(String::from_utf8(line.to_vec()).unwrap()),
                Piece::Cut(line) => lines.push(format!("{}…", String::from_utf8_lossy(&line))),
                Piece::More(_) | Piece::Last(_) => {}
            }
        }
        lines
    }

    #[tokio::test]
    async fn of_a_line_that_is_too_long_it_is_known_whose_it_is() {
        let server = || ServerName::new("files").unwrap();
        let long = "x".repeat(100_000);
        let id_last = format!("{{\"result\":\"{long}\",\"id\":7}}\n{{}}\n");
        let endless = format!("{{\"id\":8,\"result\":\"{long}");
        let asks = format!("{{\"id\":9,\"method\":\"{long}\"}}\n");
        for (text, expected) in [
            (id_last, ["over Some(\"7\")", "whole"].as_slice()),
            (endless, &["cut Some(\"8\")"]),
            (asks, &["over Some(\"9\")"]),
        ] {
            let (sender, mut lines) = mpsc::channel(16);
            read(text.as_bytes(), sender, 1000, server(), Arc::default()).await;
            let mut read = Vec::new();
            while let Some(line) = lines.recv().await {
                read.push(match line {
                    Line::Whole(_) => "whole".to_owned(),
                    Line::Cut(skim) => format!("cut {:?}", skim.id()),
                    Line::Over(skim) => format!("over {:?}", skim.id()),
                });
            }
            assert_eq!(read, expected);
        }
    }

    #[tokio::test]
    async fn lines_are_whole_or_said_to_be_cut() {
        assert_eq!(lines(b"one\n\ntwo\r\nthree", 5).await, ["one", "", "two\r", "three"]);
        assert_eq!(lines(b"12345\n123456\nnext\n", 5).await, ["12345", "12345…", "next"]);
        let long = [vec![b'x'; 100_000], b"\nnext\n".to_vec()].concat();
        assert_eq!(lines(&long, 5).await, ["xxxxx…", "next"]);
        let long = vec![b'x'; 100_000];
        assert_eq!(lines(&long, 5).await, ["xxxxx…"]);
        assert_eq!(lines(&long, 100_000).await[0].len(), 100_000);
    }

    #[test]
    fn secrets_are_hidden_whole_also_at_the_cut() {
        let secrets = ["canary", "canary-long", "line one\nline two", "abc"].map(|text| Secret::new(text.to_owned()));
        let words = Words::of(&secrets, SECRET);
        let hide = |line: &[u8]| hide(line, words.as_ref());
        assert_eq!(hide(b"a canary-long b canary"), "a [redacted:credential] b [redacted:credential]");
        assert_eq!(hide(b"x line two y"), "x [redacted:credential] y");
        assert_eq!(hide(b"abc"), "abc");
        let line = [vec![b'x'; COMPLAINT - 3], b"canary-long".to_vec()].concat();
        let shown = hide(&line);
        assert!(shown.ends_with("[re…") && !shown.contains("can"), "{shown}");
        // Many that are longer than their mask, and half of one where the reader stopped.
        let many = "%63%61%6e%61%72%79%2d%6c%6f%6e%67 ".repeat(130);
        let line = [many.get(..COMPLAINT + 80).unwrap().as_bytes(), b"ca%6Eary-lo"].concat();
        let shown = hide(&line);
        assert!(!shown.contains("-lo") && !shown.contains("%6") && shown.ends_with('…'), "{shown}");
    }

    #[test]
    fn secrets_are_hidden_in_the_spellings_that_answers_hide() {
        let secrets = [Secret::new("Token zq\"X/wert+ycanary".to_owned())];
        let words = Words::of(&secrets, SECRET);
        for (line, shown) in [
            (r#"got zq"X/wert+ycanary"#.to_owned(), "got [redacted:credential]"),
            (r#"{"auth":"Token zq\"X/wert+ycanary"}"#.to_owned(), r#"{"auth":"[redacted:credential]"}"#),
            (r#"{"t":"zq\u0022X\/wert\u002Bycanary"}"#.to_owned(), r#"{"t":"[redacted:credential]"}"#),
            (r#"{\"t\":\"zq\\\"X/wert+ycanary\"}"#.to_owned(), r#"{\"t\":\"[redacted:credential]\"}"#),
            ("GET /?t=zq%22X/wert%2bycanary&n=1".to_owned(), "GET /?t=[redacted:credential]&n=1"),
            (format!("in {}", BASE64_STANDARD.encode("zq\"X/wert+ycanary")), "in [redacted:credential]="),
        ] {
            assert_eq!(hide(line.as_bytes(), words.as_ref()), shown, "{line}");
        }
    }

    #[test]
    fn secrets_that_are_known_by_their_form_are_hidden_too() {
        let token = "glpat-q8Zr3kT0vXw5YbN2mLpD";
        let shown = hide(format!("signing in with {token}; AWS AKIAQ7ZP4X2MN5RT8WYK").as_bytes(), None);
        assert_eq!(shown, "signing in with [redacted:gitlab-token]; AWS [redacted:aws-access-key]");
    }
}
