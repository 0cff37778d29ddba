use keyward::{Alphabet, Checksum, Formats, KeyFormat, secret::Malformed};
use proptest::prelude::*;

use super::{awkward, products, with_checksum};
use crate::support::mistyped;

#[test]
fn ten_thousand_generated_secrets_of_each_format_parse() {
    for format in products().into_iter().chain(awkward()) {
        for _ in 0..10_000 {
            let secret = format.generate().unwrap();
            let parsed = format.parse(secret.expose()).unwrap();
            assert_eq!(parsed.expose(), secret.expose());
            assert!(secret.expose().starts_with(parsed.hint()));
        }
    }
}

#[test]
fn the_error_names_the_violated_rule() {
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
fn a_secret_of_another_product_or_environment_is_refused() {
    let all = products();
    for (i, format) in all.iter().enumerate() {
        let secret = format.generate().unwrap();
        for (j, other) in all.iter().enumerate() {
            assert_eq!(other.parse(secret.expose()).is_ok(), i == j);
        }
    }
}

#[test]
fn the_checksum_detects_every_single_typo_and_swap() {
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
fn a_body_contains_exactly_the_characters_of_its_alphabet() {
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let is_url = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let belongs = |alphabet, byte: u8| match alphabet {
        Alphabet::Base62 => byte.is_ascii_alphanumeric(),
        Alphabet::Hex => is_hex(byte),
        Alphabet::Base64Url => is_url(byte),
    };
    for (alphabet, shortest) in
        [(Alphabet::Base62, 22), (Alphabet::Hex, 32), (Alphabet::Base64Url, 22)]
    {
        for len in shortest..=50 {
            let format = KeyFormat::builder("lc").alphabet(alphabet).checksum(Checksum::None);
            let format = format.total_len(3 + len).build().unwrap();
            for (byte, position) in (0..=u8::MAX).flat_map(|byte| (0..len).map(move |n| (byte, n)))
            {
                let mut text = [b"lc_".as_slice(), &vec![b'a'; len]].concat();
                text[3 + position] = byte;
                let expected =
                    if belongs(alphabet, byte) { Ok(()) } else { Err(Malformed::Alphabet) };
                assert_eq!(format.parse(&text).map(|_| ()), expected, "{alphabet:?} {byte} {len}");
            }
        }
    }
}

#[test]
fn a_character_outside_the_alphabet_is_rejected_even_if_the_checksum_matches() {
    let format = KeyFormat::builder("lc").build().unwrap();
    let parse = |body: &str| format.parse(&with_checksum(&format!("lc_{body}"))).map(|_| ());
    let body = "a".repeat(30);
    assert_eq!(parse(&body), Ok(()));
    for position in 0..body.len() - 1 {
        for wrong in ["-a", "a-", "\u{e4}"] {
            let wrong = format!("{}{wrong}{}", &body[..position], &body[position + 2..]);
            assert_eq!(parse(&wrong), Err(Malformed::Alphabet), "{position}");
        }
    }
}

#[test]
fn every_byte_of_the_prefix_is_compared() {
    let format = KeyFormat::builder("abcdefghijklmnop").environment("qrstuvwxyz").build().unwrap();
    let secret = format.generate().unwrap();
    for position in 0..format.secret_prefix().len() {
        let mut text = secret.expose().as_bytes().to_vec();
        text[position] ^= 1;
        let prefix = position < "abcdefghijklmnop_".len();
        let wrong = if prefix { Malformed::Prefix } else { Malformed::Environment };
        assert_eq!(format.parse(&text).unwrap_err(), wrong, "{position}");
    }
}

#[test]
fn the_checksum_covers_every_character_of_prefixes_and_bodies_of_any_length() {
    let word = "lnos0live0123456789abcdefghijklm";
    for prefix in (1..=word.len()).map(|len| format!("{}_", &word[..len])) {
        for body_len in 22..62 {
            let format = KeyFormat::builder(prefix.trim_end_matches('_'))
                .total_len(prefix.len() + body_len + 6)
                .build()
                .unwrap();
            let body = &"A0z9Bb8C".repeat(8)[..body_len];
            let mut text = with_checksum(&format!("{prefix}{body}")).into_bytes();
            assert!(format.parse(&text).is_ok(), "{prefix} {body_len}");
            for position in prefix.len()..prefix.len() + body_len {
                text[position] ^= 1;
                assert_eq!(format.parse(&text).unwrap_err(), Malformed::Checksum, "{position}");
                text[position] ^= 1;
            }
        }
    }
}

#[test]
fn a_checksum_with_any_two_wrong_bytes_is_rejected() {
    let format = KeyFormat::builder("lc").build().unwrap();
    for body in ["10".repeat(15), "15".repeat(15)] {
        let right = with_checksum(&format!("lc_{body}")).into_bytes();
        let first = right.len() - 6;
        for (p, q) in (0..5).flat_map(|p| (p + 1..6).map(move |q| (first + p, first + q))) {
            for (x, y) in (0..=u8::MAX).flat_map(|x| (0..=u8::MAX).map(move |y| (x, y))) {
                let mut text = right.clone();
                (text[p], text[q]) = (x, y);
                assert_eq!(format.parse(&text).is_ok(), text == right, "{text:?}");
            }
        }
    }
}

#[test]
fn the_error_of_the_closest_format_is_returned() {
    let live = KeyFormat::builder("lk").environment("live").total_len(64).build().unwrap();
    let plain = KeyFormat::builder("lk").total_len(64).checksum(Checksum::None).build().unwrap();
    let formats = Formats::new(live).accept(plain).unwrap();
    let typo = mistyped(formats.current().generate().unwrap().expose());
    assert_eq!(formats.parse(&typo).unwrap_err(), Malformed::Checksum);
}

proptest! {
    #[test]
    fn parsing_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        for format in products().into_iter().chain(awkward()) {
            let _ = format.parse(&bytes);
            let mut prefixed = format.secret_prefix().as_bytes().to_vec();
            prefixed.extend(&bytes);
            prefixed.truncate(format.total_len());
            let _ = format.parse(&prefixed);
        }
    }

    #[test]
    fn text_of_any_script_is_refused_without_a_panic(text in "\\PC{0,80}") {
        for format in products() {
            prop_assert!(format.parse(&text).is_err());
        }
    }
}
