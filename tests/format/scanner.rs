use keyward::{KeyFormat, secret::ScannerRules};
use regex::Regex;

use super::{awkward, products};

/// The regular expression of each kind of rule, as the scanner assembles it.
fn compiled(rules: &ScannerRules) -> [Regex; 3] {
    let github = &rules.github;
    let gitleaks = rules
        .gitleaks
        .lines()
        .find_map(|line| line.strip_prefix("regex = '''")?.strip_suffix("'''"));
    [
        Regex::new(&rules.regex).unwrap(),
        Regex::new(gitleaks.unwrap()).unwrap(),
        Regex::new(&format!("{}({}){}", github.before, github.secret, github.after)).unwrap(),
    ]
}

/// Texts that differ from a secret by one additional, missing or wrong character.
fn near_misses(format: &KeyFormat) -> Vec<String> {
    let secret = format.generate().unwrap();
    let secret = secret.expose();
    let position =
        format.secret_prefix().len() + secret.bytes().map(usize::from).sum::<usize>() % 20;
    let (head, tail) = secret.split_at(position);
    vec![
        secret[..secret.len() - 1].to_owned(),
        secret[1..].to_owned(),
        format!("{secret}A"),
        format!("A{secret}"),
        format!("{secret}_"),
        format!("{head}{}", &tail[1..]),
        format!("{head}.{}", &tail[1..]),
        format!("{head} {tail}"),
        secret.replacen('_', "-", 1),
        format!("{}{}", secret[..1].to_ascii_uppercase().replace('X', "y"), &secret[1..]),
    ]
}

#[test]
fn each_rule_finds_1_000_secrets_and_no_near_miss() {
    for format in products().into_iter().chain(awkward()) {
        let rules = compiled(&format.scanner_rules());
        for i in 0..1_000 {
            let secret = format.generate().unwrap();
            let secret = secret.expose();
            let text = match i % 5 {
                0 => secret.to_owned(),
                1 => format!("export KEY=\"{secret}\""),
                2 => format!("key: {secret}\n"),
                3 => format!("https://host/?key={secret}&x=1"),
                _ => format!("('{secret}',)"),
            };
            for rule in &rules {
                assert_eq!(&rule.captures(&text).expect("found")[1], secret);
            }
        }
        for miss in (0..100).flat_map(|_| near_misses(&format)) {
            for rule in &rules {
                assert!(!rule.is_match(&format!("key = \"{miss}\"")), "{format}: {miss}");
            }
        }
    }
}

#[test]
fn the_gitleaks_rule_has_the_fields_that_gitleaks_reads() {
    let lurus = products().remove(0).scanner_rules();
    assert!(lurus.regex.contains("lc_[0-9A-Za-z]{36}"), "body and checksum in one class");
    let rule = products().remove(1).scanner_rules().gitleaks;
    for line in [
        "[[rules]]",
        "id = \"lnos_live-api-key\"",
        "secretGroup = 1",
        "keywords = [\"lnos_live_\"]",
    ] {
        assert!(rule.lines().any(|l| l == line), "{line} in {rule}");
    }
}

#[test]
fn every_secret_of_a_list_is_found() {
    for format in products().into_iter().chain(awkward()) {
        let secrets: Vec<_> = (0..20).map(|_| format.generate().unwrap()).collect();
        let secrets: Vec<_> = secrets.iter().map(|secret| secret.expose()).collect();
        for separator in ["\n", ",", " ", "|"] {
            let text = secrets.join(separator);
            for rule in compiled(&format.scanner_rules()) {
                let found: Vec<_> =
                    rule.captures_iter(&text).map(|found| found.extract::<1>().1[0]).collect();
                assert_eq!(found, secrets, "{format}, separator {separator:?}");
            }
        }
    }
}
