//! libFuzzer on `mstore_fuzz::report`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mstore_fuzz::report(bytes));
