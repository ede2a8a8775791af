//! HTTP/1.1 as cheaply as a load generator can: one connection, one request at a time, no allocation once warm.
//!
//! It shares the machine with what it measures, so what it saves is accuracy.

use anyhow::{Context, Result, bail};
use std::{net::SocketAddr, time::Instant};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// One connection.
pub(crate) struct Wire {
    stream: TcpStream,
    seen: Vec<u8>,
}

/// What came back; the body is where the caller said.
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) session: Option<String>,
    pub(crate) is_event_stream: bool,
    pub(crate) first_byte: Instant,
}

enum Framing {
    Length(usize),
    Chunked,
}

impl Wire {
    #[expect(clippy::disallowed_methods, reason = "a load generator dials what it measures")]
    pub(crate) async fn dial(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, seen: Vec::with_capacity(16 << 10) })
    }

    /// Sends `request` and reads the whole answer into `body`.
    pub(crate) async fn exchange(&mut self, request: &[u8], body: &mut Vec<u8>) -> Result<Head> {
        self.stream.write_all(request).await?;
        body.clear();
        let end = loop {
            if let Some(end) = find(&self.seen, b"\r\n\r\n") {
                break end;
            }
            self.more().await?;
        };
        let (head, framing) = parse(self.seen.get(..end).unwrap_or_default())?;
        self.seen.drain(..end + 4);
        let mut first_byte = None;
        match framing {
            Framing::Length(length) => self.take(length, body, &mut first_byte).await?,
            Framing::Chunked => loop {
                let end = loop {
                    if let Some(end) = find(&self.seen, b"\r\n") {
                        break end;
                    }
                    self.more().await?;
                };
                let size = std::str::from_utf8(self.seen.get(..end).unwrap_or_default())?;
                let size = usize::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16)?;
                self.seen.drain(..end + 2);
                self.take(size, body, &mut first_byte).await?;
                let mut blank = Vec::new();
                self.take(2, &mut blank, &mut None).await?;
                if size == 0 {
                    break;
                }
            },
        }
        Ok(Head { first_byte: first_byte.unwrap_or_else(Instant::now), ..head })
    }

    async fn take(&mut self, length: usize, into: &mut Vec<u8>, first_byte: &mut Option<Instant>) -> Result<()> {
        while self.seen.len() < length {
            self.more().await?;
        }
        if length > 0 {
            first_byte.get_or_insert_with(Instant::now);
        }
        into.extend(self.seen.drain(..length));
        Ok(())
    }

    async fn more(&mut self) -> Result<()> {
        if self.stream.read_buf(&mut self.seen).await? == 0 {
            bail!("the connection was closed in mid-answer");
        }
        Ok(())
    }
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

fn parse(head: &[u8]) -> Result<(Head, Framing)> {
    let text = std::str::from_utf8(head)?;
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).context("no status")?.parse()?;
    let mut head = Head { status, session: None, is_event_stream: false, first_byte: Instant::now() };
    let mut framing = Framing::Length(0);
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            framing = Framing::Length(value.parse()?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            framing = Framing::Chunked;
        } else if name.eq_ignore_ascii_case("content-type") {
            head.is_event_stream = value.starts_with("text/event-stream");
        } else if name.eq_ignore_ascii_case("mcp-session-id") {
            head.session = Some(value.to_owned());
        }
    }
    Ok((head, framing))
}
