//! From a host name to addresses. Never judges them and never remembers them.

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::{IpAddr, SocketAddr},
    sync::{Mutex, PoisonError},
};

/// Where addresses of names come from.
#[derive(Debug, Default)]
pub enum Resolver {
    /// The system: `/etc/hosts`, then DNS.
    #[default]
    System,
    /// A table, for tests: no other name exists.
    Fixed(FixedNames),
}

impl Resolver {
    /// All addresses of `host`, in the order of preference.
    #[expect(clippy::disallowed_methods, reason = "this is the room in which names are resolved")]
    pub(crate) async fn lookup(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        match self {
            Self::System => Ok(tokio::net::lookup_host((host, port)).await?.collect()),
            Self::Fixed(names) => Ok(names.next(host)?.into_iter().map(|ip| SocketAddr::new(ip, port)).collect()),
        }
    }
}

/// Names with scripted answers. Each question takes the next answer; the last one stays.
#[derive(Debug, Default)]
pub struct FixedNames {
    answers: Mutex<HashMap<String, VecDeque<Vec<IpAddr>>>>,
}

impl FixedNames {
    /// Adds what the next question about `host` is answered with.
    #[must_use]
    pub fn answer(self, host: &str, addresses: &[IpAddr]) -> Self {
        self.answers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(host.to_owned())
            .or_default()
            .push_back(addresses.to_vec());
        self
    }

    fn next(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let unknown = || io::Error::new(io::ErrorKind::NotFound, "no such name");
        let answers = answers.get_mut(host).ok_or_else(unknown)?;
        let last = answers.len() < 2;
        let answer = if last { answers.front().cloned() } else { answers.pop_front() };
        answer.ok_or_else(unknown)
    }
}
