//! Free ports, and waiting for whoever should listen on them.

use crate::process::Running;
use anyhow::{Result, bail};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    ops::Range,
    process,
    sync::atomic::{AtomicU16, Ordering},
    thread,
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(50);

/// Below those that the system gives to whoever connects (Linux: from 32768 on): such a one may be taken before it is used.
const PORTS: Range<u16> = 20_000..32_000;

/// An address nobody listens on at this moment. Each is another one.
pub(crate) fn free() -> Result<SocketAddr> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let (first, count) = (process::id(), u32::from(PORTS.end - PORTS.start));
    for _ in PORTS {
        let offset = first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed).into()) % count;
        let port = PORTS.start + u16::try_from(offset)?;
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            return Ok(listener.local_addr()?);
        }
    }
    bail!("no port from {} to {} is free", PORTS.start, PORTS.end)
}

/// Waits until `GET path` is answered with a status below 500, or with anything at all where `path` is none.
pub(crate) fn wait(running: &mut Running, address: SocketAddr, path: Option<&str>) -> Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if running.has_ended() {
            bail!("it ended before it was ready");
        }
        if answers(address, path) {
            return Ok(());
        }
        thread::sleep(PAUSE);
    }
    bail!("it was not ready within {} s", PATIENCE.as_secs())
}

#[expect(clippy::disallowed_methods, reason = "a chore asks its own children whether they are ready")]
fn answers(address: SocketAddr, path: Option<&str>) -> bool {
    let Ok(mut stream) = TcpStream::connect(address) else { return false };
    let Some(path) = path else { return true };
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let mut head = [0; 12];
    let is_answered = stream.set_read_timeout(Some(Duration::from_secs(1))).is_ok()
        && stream.write_all(request.as_bytes()).is_ok()
        && stream.read_exact(&mut head).is_ok();
    is_answered && head.starts_with(b"HTTP/1.1 2")
}
