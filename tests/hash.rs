use hmac::{Hmac, KeyInit as _, Mac as _};
use keyward::{
    Hasher, HmacSha256Hasher, Pepper, SecretDigest, Sha256Hasher,
    secret::{HasherTag, Hashers, Sha512Hasher},
};
use sha2::Digest as _;

fn pepper(id: u16) -> Pepper {
    Pepper::new(id, vec![id as u8; 32]).unwrap()
}

#[test]
fn sha256_matches_the_published_test_vector() {
    let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(Sha256Hasher.digest(b"abc"), SecretDigest::from_sha256_text(known).unwrap());
}

#[test]
fn hmac_matches_rfc_4231() {
    // Test case 6: a key longer than a block.
    let hasher = HmacSha256Hasher::new(Pepper::new(7, vec![0xaa; 131]).unwrap());
    let digest = hasher.digest(b"Test Using Larger Than Block-Size Key - Hash Key First");
    let known = "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54";
    assert_eq!(hex::encode(&digest.to_bytes()[3..]), known);
}

/// Short texts are hashed by code of this crate.
#[test]
fn digests_of_every_length_are_those_of_sha2_and_hmac() {
    let text: Vec<u8> = (0..=200).collect();
    let hmac = |len: usize| {
        let keyed = Hmac::<sha2::Sha256>::new_from_slice(&text[..len]).unwrap();
        (HmacSha256Hasher::new(Pepper::new(7, &text[..len]).unwrap()), keyed)
    };
    let hmacs: Vec<_> = (32..=130).map(hmac).collect();
    for len in 0..text.len() {
        let text = &text[..len];
        let expected = SecretDigest::from_sha256(&sha2::Sha256::digest(text)).unwrap();
        assert_eq!(Sha256Hasher.digest(text), expected, "{len}");
        for (hasher, keyed) in &hmacs {
            let mac = keyed.clone().chain_update(text).finalize().into_bytes();
            assert_eq!(hasher.digest(text), SecretDigest::from_parts(hasher.tag(), mac.into()));
        }
    }
}

#[test]
fn a_hash_is_imported_from_hex_and_every_base64_variant() {
    use base64::prelude::*;
    for text in ["", "a", "some key of another system", "??>>~~"] {
        let raw = <[u8; 32]>::from(sha2::Sha256::digest(text));
        let digest = Sha256Hasher.digest(text.as_bytes());
        for encoded in [
            hex::encode(raw),
            hex::encode_upper(raw),
            BASE64_STANDARD.encode(raw),
            BASE64_STANDARD_NO_PAD.encode(raw),
            BASE64_URL_SAFE.encode(raw),
            BASE64_URL_SAFE_NO_PAD.encode(raw),
        ] {
            assert_eq!(SecretDigest::from_sha256_text(&encoded).unwrap(), digest);
        }
        let raw = sha2::Sha512::digest(text);
        let digest = Sha512Hasher.digest(text.as_bytes());
        assert_eq!(SecretDigest::from_sha512_text(&hex::encode(raw)).unwrap(), digest);
        assert_eq!(SecretDigest::from_sha512_text(&BASE64_STANDARD.encode(raw)).unwrap(), digest);
    }
}

#[test]
fn a_truncated_hash_or_one_of_another_algorithm_is_not_imported() {
    let sha1 = "da39a3ee5e6b4b0d3255bfef95601890afd80709";
    for text in ["", "zz", sha1, &"0".repeat(63), &"g".repeat(64), "ünïcode"] {
        assert!(SecretDigest::from_sha256_text(text).is_err(), "{text}");
        assert!(SecretDigest::from_sha512_text(text).is_err(), "{text}");
    }
    assert!(SecretDigest::from_sha512_text(&"0".repeat(64)).is_err());
}

#[test]
fn digests_of_different_hashers_never_collide() {
    let hashers: [&dyn Hasher; 4] = [
        &Sha256Hasher,
        &Sha512Hasher,
        &HmacSha256Hasher::new(pepper(1)),
        &HmacSha256Hasher::new(pepper(2)),
    ];
    let digests: Vec<_> = hashers.iter().map(|hasher| hasher.digest(b"one key")).collect();
    for (i, a) in digests.iter().enumerate() {
        assert_eq!(a.tag(), hashers[i].tag());
        assert_eq!(SecretDigest::from_bytes(&a.to_bytes()), Some(*a));
        assert_eq!(digests.iter().filter(|b| *b == a).count(), 1);
    }
    // The same 32 bytes with another tag are a different digest.
    let raw: [u8; 32] = digests[0].to_bytes()[3..].try_into().unwrap();
    assert_ne!(SecretDigest::from_parts(HasherTag::custom(1), raw), digests[0]);
}

#[test]
fn digests_that_differ_in_one_bit_are_not_equal() {
    let digest = Sha256Hasher.digest(b"key");
    for bit in 0..35 * 8 {
        let mut bytes = digest.to_bytes();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let other = SecretDigest::from_bytes(&bytes).unwrap();
        assert!(!bool::from(digest.ct_eq(&other)), "bit {bit}");
    }
}

#[test]
fn candidates_are_the_current_digest_and_then_every_retired_one() {
    let hashers = Hashers::new(HmacSha256Hasher::new(pepper(3)))
        .also_accept(HmacSha256Hasher::new(pepper(2)))
        .also_accept(Sha256Hasher);
    let candidates = hashers.candidates(b"key");
    let tags: Vec<_> = candidates.as_slice().iter().map(|digest| digest.tag()).collect();
    let pepper_tag = |id| HmacSha256Hasher::new(pepper(id)).tag();
    assert_eq!(tags, [pepper_tag(3), pepper_tag(2), HasherTag::SHA256]);
    assert_eq!(candidates.current(), &hashers.digest(b"key"));
    assert!(hashers.accepts(HasherTag::SHA256) && !hashers.accepts(HasherTag::SHA512));
}

#[test]
fn a_short_pepper_is_refused_and_debug_output_shows_no_pepper() {
    let error = Pepper::new(1, vec![7; 31]).unwrap_err();
    assert!(error.to_string().contains("31 bytes is too short"));
    let pepper = Pepper::new(1, b"pepper-pepper-pepper-pepper-pepper".to_vec()).unwrap();
    let shown = format!("{pepper:#?} {:#?}", HmacSha256Hasher::new(pepper_again()));
    assert!(!shown.contains("pepper-") && !shown.contains("112"), "{shown}");
}

fn pepper_again() -> Pepper {
    Pepper::new(1, b"pepper-pepper-pepper-pepper-pepper".to_vec()).unwrap()
}
