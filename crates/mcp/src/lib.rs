//! Protocol text to types, and back without touching what need not change.
//!
//! One scan of our own reads a body and says what it is; everything after it works on ranges of
//! those bytes. No IO, no async, no clock; total on any bytes: nothing here panics, and nothing
//! recurses deeper than [`Limits::DEEPEST`].
//!
//! Read in this order: [`scan`](mod@scan) (what is accepted), [`message`] (what was said), [`header`]
//! (what HTTP claims about it), [`splice`](mod@splice) (how it is changed), [`sse`] (how it streams), [`address`],
//! [`name`] and [`page`] (what the aggregate calls things), [`bridge`] (what it is in the other era).

pub mod address;
pub mod bridge;
pub mod error;
pub mod header;
mod known;
mod limits;
pub mod list;
pub mod message;
pub mod method;
pub mod name;
pub mod page;
pub mod param;
mod parts;
pub mod scan;
mod skim;
pub mod splice;
pub mod sse;
mod text;
mod value;
pub mod version;
mod walk;

pub use error::error_text;
pub use header::{HeaderFault, check, name_value};
pub use known::Known;
pub use limits::Limits;
pub use list::{Entry, ListFault};
pub use message::{Kind, Member, Message, id_key};
pub use method::ListKind;
pub use scan::{Body, ScanFault, Span, Why, scan, scan_value};
pub use skim::Skim;
pub use splice::{quote, splice};
pub use value::{pointer, value};
pub use version::{Era, Revision, key};
