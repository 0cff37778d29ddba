mod build;
mod parse;
mod scanner;

use keyward::{Alphabet, Checksum, Formats, KeyFormat};

/// The formats of the five example products.
pub fn products() -> Vec<KeyFormat> {
    vec![
        KeyFormat::builder("lc").build().unwrap(),
        KeyFormat::builder("lnos")
            .environment("live")
            .alphabet(Alphabet::Hex)
            .bits(128)
            .checksum(Checksum::None)
            .build()
            .unwrap(),
        KeyFormat::builder("lk").build().unwrap(),
        KeyFormat::builder("api").build().unwrap(),
        KeyFormat::builder("lm").environment("dev").total_len(64).build().unwrap(),
    ]
}

/// Formats that are hard to parse: separators inside prefixes and bodies, the maximum length.
pub fn awkward() -> Vec<KeyFormat> {
    vec![
        KeyFormat::builder("acme_live").alphabet(Alphabet::Base64Url).build().unwrap(),
        KeyFormat::builder("a-b_c").environment("eu-1").alphabet(Alphabet::Hex).build().unwrap(),
        KeyFormat::builder("X").alphabet(Alphabet::Base64Url).total_len(512).build().unwrap(),
    ]
}

/// The text of a secret up to the checksum, and the checksum: a CRC-32 as six base62 digits.
pub fn with_checksum(text: &str) -> String {
    let digits = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let crc = crc32fast::hash(text.as_bytes());
    let digit = |place: u32| char::from(digits[(crc / 62u32.pow(place) % 62) as usize]);
    text.chars().chain((0..6).rev().map(digit)).collect()
}

#[test]
fn each_example_product_can_describe_its_format() {
    let [lurus, luna, lk, api, lumio] = <[KeyFormat; 5]>::try_from(products()).unwrap();
    let secret = lurus.generate().unwrap();
    assert!(secret.expose().starts_with("lc_"));
    assert_eq!(format!("{secret:?}"), "Secret([redacted])");

    let secret = luna.generate().unwrap();
    let (prefix, body) = secret.expose().split_at("lnos_live_".len());
    assert_eq!((prefix, body.len()), ("lnos_live_", 32));
    assert!(body.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)));
    let hint = luna.parse("lnos_live_a1b2c3d4e5f6a7b8a9b0a1b2a3b4a5b6").unwrap().hint();
    assert_eq!(hint, "lnos_live_a1b2c3d4");

    let both = Formats::new(lk.clone()).accept(api.clone()).unwrap();
    for format in [lk, api] {
        assert!(both.parse(format.generate().unwrap().expose()).is_ok());
    }

    let secret = lumio.generate().unwrap();
    assert!(secret.expose().starts_with("lm_dev_"));
    assert_eq!(secret.expose().len(), 64);
}
