//! What `sse` promises.
