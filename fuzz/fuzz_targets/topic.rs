//! libFuzzer on `mstore_fuzz::topic`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mstore_fuzz::topic(bytes));
