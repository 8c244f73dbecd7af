//! libFuzzer on `mstore_fuzz::problem`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mstore_fuzz::problem(bytes));
