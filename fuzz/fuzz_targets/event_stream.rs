//! The libFuzzer door to [`fuzz::event_stream`]; says nothing of its own.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::event_stream(input));
