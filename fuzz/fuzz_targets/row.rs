//! libFuzzer on `mstore_fuzz::row`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mstore_fuzz::row(bytes));
