//! What `param` promises.
