//! The one outbound connector.
//!
//! Everything Durward dials goes through here: names are resolved, every address is judged, and
//! the connection goes to the very address that was judged. Redirects are never followed,
//! every wait has a deadline, proxies from the environment are not used.
//!
//! Never reads configuration, never logs a header or a body, never repeats a request
//! that may have arrived.

mod address;
mod body;
mod connect;
mod endpoint;
mod fault;
mod first;
mod http2;
mod pool;
mod resolve;
mod tls;

pub use body::Body;
pub use connect::{Egress, Settings};
pub use endpoint::{Endpoint, EndpointFault, Protocol};
pub use fault::{Broken, EgressFault, Phase};
pub use resolve::{FixedNames, Resolver};
pub use tls::{Roots, TlsError};

#[cfg(test)]
mod tests;
