//! The libFuzzer door to [`fuzz::bridge`]; says nothing of its own.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::bridge(input));
