#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ipsecd::testing::fuzz::segment(data));
