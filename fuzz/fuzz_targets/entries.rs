#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| notifyman::fuzz::entries(data));
