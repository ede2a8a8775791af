//! The stories of this crate.
