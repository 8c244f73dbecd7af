//! libFuzzer on `mstore_fuzz::authorization`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mstore_fuzz::authorization(bytes));
