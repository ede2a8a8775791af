//! Scripted fakes and a clock we hold: what tests drive the product with. Never part of it.
//!
//! Everything speaks real HTTP on loopback sockets. Nothing here sleeps: a fake waits for the test, through channels,
//! and a test waits for a fake with [`soon`], which gives up loudly.
#![expect(
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a fake that cannot do its part fails the test that wanted it"
)]

mod agent;
mod answer;
mod client;
mod clock;
mod issuer;
mod port;
pub mod schema;
mod streamer;
mod upstream;

#[cfg(test)]
mod tests;

pub use agent::{Agent, LEGACY, MODERN, meta};
pub use answer::{Answer, Feed};
pub use client::{Ask, Connection, Event, Multiplexed, Reply};
pub use clock::HeldClock;
pub use issuer::{Issuer, Kind, SigningKey, compact};
pub use port::free_port;
pub use streamer::Streamer;
pub use upstream::{Received, Upstream};

use std::{future::Future, time::Duration};

/// Waits for what must happen soon, and fails the test when it does not.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), what).await.expect("it did not happen within ten seconds")
}
