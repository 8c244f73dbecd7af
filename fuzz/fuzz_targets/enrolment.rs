//! libFuzzer on `mstore_fuzz::enrolment`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mstore_fuzz::enrolment(bytes));
