//! libFuzzer on `mstore_fuzz::config_file`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mstore_fuzz::config_file(bytes));
