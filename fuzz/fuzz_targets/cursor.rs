//! libFuzzer on `mstore_fuzz::cursor`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mstore_fuzz::cursor(bytes));
