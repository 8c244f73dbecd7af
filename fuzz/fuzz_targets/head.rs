//! libFuzzer on `mstore_fuzz::head`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mstore_fuzz::head(bytes));
