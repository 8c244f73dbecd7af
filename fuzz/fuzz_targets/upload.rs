//! libFuzzer on `mstore_fuzz::upload`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mstore_fuzz::upload(bytes));
