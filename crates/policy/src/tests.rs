//! The behaviour of whole policies.
