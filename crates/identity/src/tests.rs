//! The stories of this crate: real keys, a real key server, a clock we hold.

mod key;
mod settings;
mod token;
mod world;
