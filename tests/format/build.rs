use std::collections::HashMap;

use keyward::{Alphabet, Checksum, Formats, KeyFormat, secret::FormatError};
use proptest::prelude::*;

#[test]
fn fewer_than_128_random_bits_are_refused() {
    for (alphabet, characters) in
        [(Alphabet::Hex, 31), (Alphabet::Base62, 21), (Alphabet::Base64Url, 21)]
    {
        let format = |characters: usize| {
            KeyFormat::builder("lc")
                .alphabet(alphabet)
                .checksum(Checksum::None)
                .total_len(3 + characters)
                .build()
        };
        let error = format(characters).unwrap_err();
        assert!(matches!(error, FormatError::TooFewBits { bits: 124..128 }), "{error:?}");
        assert!(error.to_string().contains("can be guessed"));
        assert!(format(characters + 1).unwrap().bits() >= 128);
    }
    for total in [0, 1, 3, 9, 30] {
        assert!(KeyFormat::builder("lc").total_len(total).build().is_err());
    }
}

#[test]
fn absurd_lengths_are_refused_without_overflow() {
    for total in [513, 1 << 40, usize::MAX] {
        let error = KeyFormat::builder("lc").total_len(total).build().unwrap_err();
        assert_eq!(error, FormatError::TooLong { len: total });
    }
    assert!(matches!(
        KeyFormat::builder("lc").bits(u32::MAX).build(),
        Err(FormatError::TooLong { .. })
    ));
    assert_eq!(KeyFormat::builder("lc").total_len(512).build().unwrap().total_len(), 512);
}

#[test]
fn ambiguous_prefixes_and_environments_are_refused() {
    let long = "x".repeat(33);
    for word in ["", "_", "a_", "_a", "a__b", "a_-b", "1a", "a b", "a.b", "ä", "a\n", &long] {
        let error = KeyFormat::builder(word).build().unwrap_err();
        assert_eq!(error, FormatError::Prefix(word.into()));
        let error = KeyFormat::builder("a").environment(word).build().unwrap_err();
        assert_eq!(error, FormatError::Environment(word.into()));
    }
}

#[test]
fn a_hint_that_leaves_too_few_bits_hidden_is_refused() {
    let luna =
        |hint| KeyFormat::builder("lnos").alphabet(Alphabet::Hex).bits(128).hint_len(hint).build();
    assert!(luna(8).is_ok());
    assert!(luna(12).is_ok());
    assert_eq!(luna(13).unwrap_err(), FormatError::HintTooLong { hint: 13, left: 76 });
    assert!(luna(usize::MAX).is_err());
    assert!(luna(0).is_ok());
}

#[test]
fn default_secrets_with_a_prefix_of_up_to_19_characters_fit_one_sha256_block() {
    for len in 1..=18 {
        let format = KeyFormat::builder("p".repeat(len)).build().unwrap();
        assert_eq!(format.secret_prefix().len(), len + 1);
        assert!(format.generate().unwrap().expose().len() <= 55);
        assert_eq!(format.bits(), 178);
    }
    assert_eq!(KeyFormat::builder("p".repeat(19)).build().unwrap().total_len(), 56);
}

/// A generator that mapped bytes unevenly would draw some characters at least a sixteenth more often than others.
#[test]
fn all_characters_of_an_alphabet_are_equally_likely() {
    for (alphabet, characters) in
        [(Alphabet::Base62, 62), (Alphabet::Hex, 16), (Alphabet::Base64Url, 64)]
    {
        let format = KeyFormat::builder("lc").alphabet(alphabet).checksum(Checksum::None);
        let format = format.total_len(3 + 500).build().unwrap();
        let mut counts = HashMap::new();
        for _ in 0..4_000 {
            for character in format.generate().unwrap().expose()[3..].chars() {
                *counts.entry(character).or_insert(0) += 1;
            }
        }
        assert_eq!(counts.len(), characters);
        // Eight standard deviations: by chance, less than once in a million million runs.
        let expected = 4_000.0 * 500.0 / characters as f64;
        let is_near = |count: i32| (f64::from(count) - expected).abs() < 8.0 * expected.sqrt();
        assert!(counts.values().all(|count| is_near(*count)), "{counts:?}");
    }
}

#[test]
fn formats_that_could_match_the_same_text_are_refused_together() {
    let url = |prefix: &str, total| {
        KeyFormat::builder(prefix).alphabet(Alphabet::Base64Url).total_len(total).build().unwrap()
    };
    let error = Formats::new(url("lk", 60)).accept(url("lk_live", 60)).unwrap_err();
    assert_eq!(error, FormatError::Ambiguous("lk_".into(), "lk_live_".into()));
    assert!(Formats::new(url("lk", 60)).accept(url("lk", 60)).is_err());
    assert!(Formats::new(url("lk", 60)).accept(url("lk", 61)).is_ok());
    assert!(Formats::new(url("lk", 60)).accept(url("lx", 60)).is_ok());
    // A base62 body contains no separator, so it cannot begin with `live_`.
    let base62 = KeyFormat::builder("lk").total_len(60).build().unwrap();
    assert!(Formats::new(base62).accept(url("lk_live", 60)).is_ok());
}

proptest! {
    #[test]
    fn every_valid_format_parses_the_secrets_that_it_generates(
        prefix in "[A-Za-z]([A-Za-z0-9]{0,3}[_-]?[A-Za-z0-9]){0,4}",
        environment in proptest::option::of("[A-Za-z][A-Za-z0-9]{0,6}"),
        alphabet in prop_oneof![
            Just(Alphabet::Base62), Just(Alphabet::Hex), Just(Alphabet::Base64Url)
        ],
        checksum in prop_oneof![Just(Checksum::None), Just(Checksum::Crc32)],
        bits in 0u32..3000,
        hint in 0usize..40,
    ) {
        let mut builder = KeyFormat::builder(prefix)
            .alphabet(alphabet).checksum(checksum).bits(bits).hint_len(hint);
        if let Some(environment) = environment {
            builder = builder.environment(environment);
        }
        if let Ok(format) = builder.build() {
            prop_assert!(format.bits() >= bits.max(128));
            prop_assert!(format.total_len() <= 512);
            let secret = format.generate().unwrap();
            prop_assert_eq!(secret.expose().len(), format.total_len());
            let parsed = format.parse(secret.expose()).unwrap();
            prop_assert_eq!(parsed.hint().len(), format.secret_prefix().len() + hint);
        }
    }
}
