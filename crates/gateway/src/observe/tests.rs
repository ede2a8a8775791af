//! Metrics of calls that never were.
