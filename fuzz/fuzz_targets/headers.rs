#![no_main]
#![doc = "libFuzzer's way in to `trocar_fuzz::media::headers`."]

libfuzzer_sys::fuzz_target!(|data: &[u8]| trocar_fuzz::media::headers(data));
