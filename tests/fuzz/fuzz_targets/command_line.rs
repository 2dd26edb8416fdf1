#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| doorbell_fuzz::command_line(data));
