//! What `header` promises.
