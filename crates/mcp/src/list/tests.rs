//! What `list` promises.
