//! Ports for programs that listen by themselves. Whoever can hand over a listener needs none.

use std::{
    hash::{BuildHasher, RandomState},
    net::TcpListener,
    ops::Range,
};

/// Below those that the system gives to whoever connects (Linux: from 32768 on): such a one may be taken before it is used.
const PORTS: Range<u16> = 10_000..20_000;

/// A port of the loopback that nobody has at this moment. Tests that run at once begin to look in different places.
pub fn free_port() -> u16 {
    let count = PORTS.end - PORTS.start;
    let first = u16::try_from(RandomState::new().hash_one(()) % u64::from(count)).expect("a remainder");
    (0..count)
        .map(|offset| PORTS.start + (first + offset) % count)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port")
}
