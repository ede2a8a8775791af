//! What `scan` promises.
