//! The outermost part: sockets, HTTP, bounds of size and time. Knows nothing of policy.

mod accept;
mod browser;
mod receive;

pub use accept::{Rim, RimFault};
pub(crate) use receive::UnderWay;
