//! libFuzzer on `mstore_fuzz::event`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mstore_fuzz::event(bytes));
