//! libFuzzer on `mstore_fuzz::csv_log`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mstore_fuzz::csv_log(bytes));
