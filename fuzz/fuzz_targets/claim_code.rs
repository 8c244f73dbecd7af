//! libFuzzer on `mstore_fuzz::claim_code`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mstore_fuzz::claim_code(bytes));
