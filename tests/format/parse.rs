use keyward::{Checksum, Formats, KeyFormat, secret::Malformed};
use proptest::prelude::*;

use super::{products, unusual};
use crate::support::mistyped;

#[test]
fn ten_thousand_generated_secrets_of_each_format_parse() {
    for format in products().into_iter().chain(unusual()) {
        for _ in 0..10_000 {
            let secret = format.generate().unwrap();
            let parsed = format.parse(secret.expose()).unwrap();
            assert_eq!(parsed.expose(), secret.expose());
            assert!(secret.expose().starts_with(parsed.hint()));
        }
    }
}

#[test]
fn each_malformed_secret_gets_its_specific_error() {
    let luna = products().remove(1);
    let body = "a1b2c3d4e5f6a7b8a9b0a1b2a3b4a5b6";
    for (text, error) in [
        (String::new(), Malformed::Prefix),
        ("lnos".into(), Malformed::Prefix),
        (format!("LNOS_live_{body}"), Malformed::Prefix),
        (format!(" lnos_live_{body}"), Malformed::Prefix),
        (format!("lnos_test_{body}"), Malformed::Environment),
        (format!("lnos_{body}"), Malformed::Environment),
        ("lnos_live_".into(), Malformed::Length),
        (format!("lnos_live_{body}\n"), Malformed::Length),
        (format!("lnos_live_{}", &body[1..]), Malformed::Length),
        (format!("lnos_live_{}", body.replace('a', "A")), Malformed::Alphabet),
        (format!("lnos_live_{}", body.replace('a', "g")), Malformed::Alphabet),
        (format!("lnos_live_{}", body.replacen("a1", "ä", 1)), Malformed::Alphabet),
        ("x".repeat(513), Malformed::TooLong),
        (format!("lnos_live_{}", "a".repeat(1 << 20)), Malformed::TooLong),
    ] {
        assert_eq!(luna.parse(&text).unwrap_err(), error, "{text:.80}");
    }
}

#[test]
fn a_secret_of_another_product_or_environment_is_rejected() {
    let all = products();
    for (i, format) in all.iter().enumerate() {
        let secret = format.generate().unwrap();
        for (j, other) in all.iter().enumerate() {
            assert_eq!(other.parse(secret.expose()).is_ok(), i == j);
        }
    }
}

#[test]
fn the_checksum_detects_every_changed_character_and_swap() {
    let format = products().remove(0);
    for _ in 0..20 {
        let secret = format.generate().unwrap();
        let good = secret.expose().as_bytes();
        for position in 0..good.len() {
            for byte in 0..=255u8 {
                let mut typo = good.to_vec();
                typo[position] = byte;
                assert_eq!(format.parse(&typo).is_ok(), typo == good);
            }
            let mut swapped = good.to_vec();
            swapped.swap(position, (position + 1) % good.len());
            assert_eq!(format.parse(&swapped).is_ok(), swapped == good);
        }
    }
}

#[test]
fn with_several_formats_the_error_is_that_of_the_closest_match() {
    let live = KeyFormat::builder("lk").environment("live").total_len(64).build().unwrap();
    let plain = KeyFormat::builder("lk").total_len(64).checksum(Checksum::None).build().unwrap();
    let formats = Formats::new(live).accept(plain).unwrap();
    let typo = mistyped(formats.current().generate().unwrap().expose());
    assert_eq!(formats.parse(&typo).unwrap_err(), Malformed::Checksum);
}

proptest! {
    #[test]
    fn parsing_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        for format in products().into_iter().chain(unusual()) {
            let _ = format.parse(&bytes);
            let mut prefixed = format.lead().as_bytes().to_vec();
            prefixed.extend(&bytes);
            prefixed.truncate(format.total_len());
            let _ = format.parse(&prefixed);
        }
    }

    #[test]
    fn text_of_any_script_is_rejected_without_a_panic(text in "\\PC{0,80}") {
        for format in products() {
            prop_assert!(format.parse(&text).is_err());
        }
    }
}
