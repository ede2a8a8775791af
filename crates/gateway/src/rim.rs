//! The outermost part: sockets, HTTP, bounds of size and time. Knows nothing of policy.

mod accept;
mod batch;
mod body;
mod browser;
mod certificate;
mod connection;
mod lasting;
mod listen;
mod open;
mod patience;
mod proxy;
mod receive;
mod refuse;
mod replay;
mod serve;
mod stream;
mod tally;
mod turn;
mod under_way;

pub use accept::{Rim, RimFault};
pub(crate) use body::Bodies;
pub use certificate::{Certificate, CertificateFault, Certificates};
pub use listen::{ListenFault, meet, own_socket, remedy};
pub(crate) use tally::Tally;
pub(crate) use under_way::UnderWay;
