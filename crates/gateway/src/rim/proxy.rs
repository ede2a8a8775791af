//! The PROXY protocol, versions 1 and 2: a balancer's word about who connected to it, said before anything else.
//!
//! Total on any bytes. Whose word counts is for `connection` to say; nothing here is believed.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};
use tokio::io::{AsyncRead, AsyncReadExt};

/// How version 2 begins.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The head of version 2, in bytes: signature, version and command, family, length.
const HEAD: usize = 16;
/// The longest line of version 1, in bytes, with its end.
const LINE: usize = 107;
/// The most that may follow the head of version 2, in bytes: addresses and what balancers add.
const REST: usize = 4096;

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// Who connected to the proxy, and to which address.
    Client {
        /// Who.
        from: IpAddr,
        /// Where to.
        to: IpAddr,
    },
    /// The proxy speaks for itself (`LOCAL`, a health check), or does not know.
    Nobody,
}

/// Why a header is none.
#[derive(Debug, thiserror::Error)]
pub(super) enum HeaderFault {
    /// It begins otherwise.
    #[error("it begins with no header of the PROXY protocol")]
    Missing,
    /// It is no such header.
    #[error("the header of the PROXY protocol is malformed: {0}")]
    Malformed(&'static str),
    /// The connection ended or broke.
    #[error("the connection broke within the header of the PROXY protocol")]
    Broken(#[from] io::Error),
}

/// Reads a header, and not a byte more: what follows is the client's.
pub(super) async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Said, HeaderFault> {
    // Both versions are at least this long: `PROXY UNKNOWN` with its end has 15 bytes, so one less than a head of
    // version 2 is read first.
    let mut head = [0; HEAD];
    let (start, last) = head.split_at_mut(HEAD - 1);
    stream.read_exact(start).await?;
    if start.starts_with(b"PROXY ") {
        return line(stream, start).await;
    }
    if !start.starts_with(&SIGNATURE) {
        return Err(HeaderFault::Missing);
    }
    stream.read_exact(last).await?;
    let [.., command, family, high, low] = head;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > REST {
        return Err(HeaderFault::Malformed("it is too long"));
    }
    // On the heap: a connection keeps no room for what is read once.
    let mut rest = vec![0; length];
    stream.read_exact(&mut rest).await?;
    second(command, family, &rest)
}

/// The rest of version 1, to the end of its line.
async fn line<S: AsyncRead + Unpin>(stream: &mut S, start: &[u8]) -> Result<Said, HeaderFault> {
    let mut text = Vec::with_capacity(LINE);
    text.extend_from_slice(start);
    // Byte by byte, for what follows the line is not ours; it is read once for a connection.
    while !text.ends_with(b"\r\n") {
        if text.len() >= LINE {
            return Err(HeaderFault::Malformed("its line is too long"));
        }
        text.push(stream.read_u8().await?);
    }
    first(&text)
}

/// Version 1: a line of text.
fn first(line: &[u8]) -> Result<Said, HeaderFault> {
    let no = || HeaderFault::Malformed("its line is not `PROXY TCP4|TCP6 FROM TO PORT PORT`");
    let text = std::str::from_utf8(line).ok().and_then(|text| text.strip_suffix("\r\n")).ok_or_else(no)?;
    let mut words = text.split(' ');
    if words.next() != Some("PROXY") {
        return Err(HeaderFault::Missing);
    }
    let family = words.next().ok_or_else(no)?;
    if family == "UNKNOWN" {
        // SPEC: what follows is to be ignored.
        return Ok(Said::Nobody);
    }
    let words: Vec<&str> = words.take(5).collect();
    let [from, to, from_port, to_port] = words.as_slice() else { return Err(no()) };
    let port = |text: &str| text.parse::<u16>().is_ok() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !port(from_port) || !port(to_port) {
        return Err(no());
    }
    let address = |text: &str| match family {
        "TCP4" => text.parse().map(IpAddr::V4).map_err(|_| no()),
        "TCP6" => text.parse().map(IpAddr::V6).map_err(|_| no()),
        _ => Err(no()),
    };
    Ok(Said::Client { from: address(from)?, to: address(to)? })
}

/// Version 2: what its head said, and the bytes after it.
fn second(command: u8, family: u8, rest: &[u8]) -> Result<Said, HeaderFault> {
    if command >> 4 != 2 {
        return Err(HeaderFault::Malformed("its version is unknown"));
    }
    let short = HeaderFault::Malformed("it is too short for its addresses");
    match command & 0xf {
        // SPEC: the addresses of LOCAL are to be ignored.
        0 => return Ok(Said::Nobody),
        1 => {}
        _ => return Err(HeaderFault::Malformed("its command is unknown")),
    }
    match family {
        // TCP over IPv4, over IPv6. What follows the addresses are additions that nobody here asks for.
        0x11 => addresses::<4>(rest).map(|(from, to)| client(Ipv4Addr::from(from), Ipv4Addr::from(to))).ok_or(short),
        0x21 => addresses::<16>(rest).map(|(from, to)| client(Ipv6Addr::from(from), Ipv6Addr::from(to))).ok_or(short),
        0x00 | 0x31 => Ok(Said::Nobody),
        _ => Err(HeaderFault::Malformed("it is of no connection over TCP")),
    }
}

/// Two addresses, if their ports follow.
fn addresses<const N: usize>(rest: &[u8]) -> Option<([u8; N], [u8; N])> {
    let (from, rest) = rest.split_first_chunk()?;
    let (to, rest) = rest.split_first_chunk()?;
    rest.first_chunk::<4>()?;
    Some((*from, *to))
}

fn client<A: Into<IpAddr>>(from: A, to: A) -> Said {
    Said::Client { from: from.into(), to: to.into() }
}

#[cfg(test)]
mod tests {
    use super::{HeaderFault, REST, SIGNATURE, Said, read};
    use proptest::prelude::*;
    use tokio::io::AsyncReadExt;

    fn two(command: u8, family: u8, length: u16, rest: &[u8]) -> Vec<u8> {
        [&SIGNATURE[..], &[command, family], &length.to_be_bytes(), rest].concat()
    }

    fn client(from: &str, to: &str) -> Said {
        Said::Client { from: from.parse().unwrap(), to: to.parse().unwrap() }
    }

    /// What is read of these bytes, and what is left for the client's own words.
    async fn seen(bytes: &[u8]) -> (Result<Said, HeaderFault>, Vec<u8>) {
        let mut stream = bytes;
        let said = read(&mut stream).await;
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        (said, rest)
    }

    #[tokio::test]
    async fn headers_of_both_versions_are_read_and_nothing_after_them() {
        let v4 = [&[192, 0, 2, 1, 192, 0, 2, 2, 0, 1, 0, 2][..], &[3, 0, 1, 9]].concat();
        let v6 = [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[1], &[0; 15], &[1], &[0, 1, 0, 2]].concat();
        for (header, expected) in [
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 5678 443\r\n".to_vec(), client("192.0.2.1", "192.0.2.2")),
            (b"PROXY TCP6 2001:db8::1 ::1 5678 443\r\n".to_vec(), client("2001:db8::1", "::1")),
            (b"PROXY UNKNOWN\r\n".to_vec(), Said::Nobody),
            (b"PROXY UNKNOWN what ever follows\r\n".to_vec(), Said::Nobody),
            (two(0x21, 0x11, 16, &v4), client("192.0.2.1", "192.0.2.2")),
            (two(0x21, 0x21, 36, &v6), client("2001:db8::1", "::1")),
            (two(0x20, 0x00, 0, &[]), Said::Nobody),
            (two(0x20, 0x11, 16, &v4), Said::Nobody),
            (two(0x21, 0x00, 0, &[]), Said::Nobody),
        ] {
            let whole = [&header[..], b"POST / HTTP/1.1"].concat();
            let (said, rest) = seen(&whole).await;
            assert_eq!((said.unwrap(), &rest[..]), (expected, &b"POST / HTTP/1.1"[..]), "{header:?}");
            for cut in 0..header.len() {
                assert!(seen(&header[..cut]).await.0.is_err(), "{cut} bytes of {header:?} are no header");
            }
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused() {
        let long = format!("PROXY TCP4 {}\r\n", "1".repeat(200));
        for bytes in [
            &b"POST /mcp HTTP/1.1\r\n\r\n"[..],
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00\x00\x00\x00\x00",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 5678\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 5678 443 9\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 5678 +443\r\n",
            b"PROXY TCP4 192.0.2.1  192.0.2.2 5678 443\r\n",
            b"PROXY TCP4 2001:db8::1 ::1 5678 443\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 5678 65536\r\n",
            b"PROXY TCP9 192.0.2.1 192.0.2.2 5678 443\r\n",
            b"PROXY TCP4 192.0.2.\xff 192.0.2.2 5678 443\r\n",
            long.as_bytes(),
            &two(0x11, 0x11, 12, &[0; 12]),
            &two(0x22, 0x11, 12, &[0; 12]),
            &two(0x21, 0x12, 12, &[0; 12]),
            &two(0x21, 0x11, 11, &[0; 11]),
            &two(0x21, 0x21, 12, &[0; 12]),
            &two(0x21, 0x11, u16::try_from(REST).unwrap() + 1, &[0; 5000]),
        ] {
            let (said, _) = seen(bytes).await;
            assert!(said.is_err(), "{bytes:?} gave {said:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300), version in 0..3) {
            let start: &[u8] = match version { 0 => b"PROXY ", 1 => &SIGNATURE, _ => b"" };
            let whole = [start, &bytes].concat();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let _ = runtime.block_on(seen(&whole));
        }
    }
}
