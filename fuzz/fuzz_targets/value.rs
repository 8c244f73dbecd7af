//! libFuzzer on `mstore_fuzz::value`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mstore_fuzz::value(bytes));
