//! libFuzzer on `mstore_fuzz::frame`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mstore_fuzz::frame(bytes));
