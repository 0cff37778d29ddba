use keyward::{
    testing::TestKeys,
    totp::{Totp, TotpSecret},
};
use proptest::prelude::*;
use reqwest::Url;

fn secret() -> TotpSecret {
    TotpSecret::from_base32("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ").unwrap()
}

fn totp(issuer: &str) -> Totp {
    Totp::new(TestKeys::new().keys, issuer)
}

#[test]
fn the_uri_contains_all_parameters_of_the_app() {
    let setup = totp("Lumio Cloud").setup(&secret(), "ada@example.com");
    let expected = "otpauth://totp/Lumio%20Cloud:ada%40example.com\
        ?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Lumio%20Cloud&algorithm=SHA1&digits=6&period=30";
    assert_eq!(setup.uri().expose(), expected);
    let anonymous = totp("").setup(&secret(), "ada");
    let expected = "otpauth://totp/ada\
        ?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&algorithm=SHA1&digits=6&period=30";
    assert_eq!(anonymous.uri().expose(), expected);
}

/// Decodes the QR code with `rqrr`, from the dark modules that the SVG draws.
fn scanned(svg: &str) -> String {
    let size: usize = between(svg, "viewBox=\"0 0 ", " ").parse().unwrap();
    assert_eq!(between(svg, "fill=\"#fff\"", ">"), "/", "the background is white");
    let path = between(svg, "<path fill=\"#000\" d=\"", "\"/></svg>");
    let mut dark = vec![false; size * size];
    for square in path.split_terminator("h1v1h-1z") {
        let (x, y) = square.strip_prefix('M').unwrap().split_once(',').unwrap();
        let (x, y): (usize, usize) = (x.parse().unwrap(), y.parse().unwrap());
        dark[y * size + x] = true;
    }
    let at = |x: usize, y: usize| if dark[y / 4 * size + x / 4] { 0 } else { 255 };
    let mut image = rqrr::PreparedImage::prepare_from_greyscale(size * 4, size * 4, at);
    let grids = image.detect_grids();
    assert_eq!(grids.len(), 1);
    grids[0].decode().unwrap().1
}

fn between<'a>(text: &'a str, begin: &str, end: &str) -> &'a str {
    text.split_once(begin).unwrap().1.split_once(end).unwrap().0
}

#[test]
fn the_qr_code_contains_the_uri() {
    for account in ["ada", "ada@example.com", &"x".repeat(200), &"é".repeat(500)] {
        let setup = totp("Lumio").setup(&secret(), account);
        assert_eq!(scanned(setup.qr_svg().expose()), setup.uri().expose());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn names_cannot_change_the_structure_of_the_uri(issuer in ".{0,60}|[:&?=#/% ]{0,60}", account in any::<String>()) {
        let setup = totp(&issuer).setup(&secret(), &account);
        let uri = setup.uri().expose();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._~%:/?=&".contains(c);
        prop_assert!(uri.chars().all(plain), "{uri}");
        prop_assert!(uri.matches(':').count() <= 2, "{uri}");
        let url = Url::parse(uri).unwrap();
        prop_assert_eq!((url.scheme(), url.host_str()), ("otpauth", Some("totp")));
        prop_assert_eq!(url.fragment(), None);
        let names: Vec<_> = url.query_pairs().map(|(name, _)| name.into_owned()).collect();
        let issuers = usize::from(names.contains(&"issuer".to_owned()));
        let expected = ["secret", "issuer", "algorithm", "digits", "period"];
        let expected: Vec<_> =
            expected.into_iter().filter(|name| *name != "issuer" || issuers == 1).collect();
        prop_assert_eq!(names, expected);
        let secret = url.query_pairs().find(|(name, _)| name == "secret").unwrap().1.into_owned();
        prop_assert_eq!(secret, "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ");
        let svg = setup.qr_svg();
        let allowed = |c: char| c.is_ascii_alphanumeric() || " <>\"'/=:.,#-".contains(c);
        prop_assert!(svg.expose().chars().all(allowed));
        prop_assert_eq!(svg.expose().matches('<').count(), 4);
    }
}

#[test]
fn the_longest_names_and_secrets_fit_a_qr_code() {
    let longest = TotpSecret::from_base32(&"A".repeat(102)).unwrap();
    for name in ["\u{10ffff}", "x", "%", "漢"] {
        let setup = totp(&name.repeat(10_000)).setup(&longest, &name.repeat(10_000));
        assert_eq!(scanned(setup.qr_svg().expose()), setup.uri().expose());
        assert!(setup.uri().expose().len() > 1_500);
    }
}

#[test]
fn secrets_of_other_systems_are_parsed_and_short_ones_rejected() {
    let canonical = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";
    for text in [canonical, "gezd gnbv gy3t qojq gezd gnbv gy3t qojq", &format!("{canonical}====")]
    {
        assert_eq!(TotpSecret::from_base32(text).unwrap().expose(), canonical, "{text}");
    }
    for text in ["", "GEZDGNBVGY3TQOJQGEZDGNBV", "GEZDGNBVGY3TQOJ1GEZDGNBVGY3TQOJ1", "é"] {
        assert!(TotpSecret::from_base32(text).is_err(), "{text}");
    }
    assert!(TotpSecret::from_base32(&"A".repeat(104)).is_err());
    assert!(TotpSecret::from_base32(&"A".repeat(26)).is_ok(), "128 bits");
    let generated = [TotpSecret::generate().unwrap(), TotpSecret::generate().unwrap()];
    assert_ne!(generated[0].expose(), generated[1].expose());
    assert_eq!(generated[0].expose().len(), 32, "160 bits");
}

#[test]
fn debug_output_does_not_show_the_secret() {
    let (secret, totp) = (secret(), totp("Lumio"));
    let setup = totp.setup(&secret, "ada");
    for shown in
        [format!("{secret:?} {setup:?} {totp:?}"), format!("{secret:#?} {setup:#?} {totp:#?}")]
    {
        assert!(!shown.contains("GEZDGNBV") && !shown.contains("12345678"), "{shown}");
        assert!(!shown.contains("49, 50"), "{shown}");
    }
    assert!(format!("{:?}", setup.qr_svg()).len() < 100);
}
