#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| queue::fuzz::queue_file(input));
