//! libFuzzer on `mstore_fuzz::operation`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mstore_fuzz::operation(bytes));
