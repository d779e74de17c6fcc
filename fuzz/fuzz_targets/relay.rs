#![no_main]
#![doc = "libFuzzer's way in to `trocar_fuzz::media::relay`."]

libfuzzer_sys::fuzz_target!(|data: &[u8]| trocar_fuzz::media::relay(data));
