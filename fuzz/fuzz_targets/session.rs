#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| smtpd::fuzz::session(input));
