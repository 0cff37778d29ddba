//! Parses arbitrary bytes: parsing never panics, and an accepted text is returned byte for byte.
//! Run `scripts/fuzz parse 60`, or `cargo +nightly fuzz run parse`.
#![no_main]

use std::sync::LazyLock;

use keyward::{Alphabet, Checksum, Formats, KeyFormat};
use libfuzzer_sys::fuzz_target;

/// The formats of the five example products. One product accepts two formats.
static FORMATS: LazyLock<Vec<Formats>> = LazyLock::new(|| {
    let build = |builder: keyward::secret::KeyFormatBuilder| builder.build().expect("valid");
    let plain = build(KeyFormat::builder("lc"));
    let environment = build(KeyFormat::builder("lc").environment("live"));
    let hex = KeyFormat::builder("lnos").environment("live").alphabet(Alphabet::Hex);
    let hex = build(hex.bits(128).checksum(Checksum::None));
    let total = build(KeyFormat::builder("lm").environment("dev").total_len(64));
    let url = build(KeyFormat::builder("lk").alphabet(Alphabet::Base64Url));
    let old = build(KeyFormat::builder("api"));
    let pair = Formats::new(url).accept(old).expect("unambiguous formats");
    vec![plain.into(), environment.into(), hex.into(), total.into(), pair]
});

fuzz_target!(|bytes: &[u8]| {
    for formats in FORMATS.iter() {
        if let Ok(parsed) = formats.parse(bytes) {
            assert_eq!(parsed.expose().as_bytes(), bytes);
            assert!(bytes.len() <= 512 && parsed.expose().is_ascii());
        }
    }
});
