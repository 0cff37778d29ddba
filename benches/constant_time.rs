//! Checks whether response times reveal anything about a secret: `cargo bench -p keyward-tests --bench constant_time`.
//!
//! The method is that of dudect: two classes of input in random order, and Welch's t-test over the
//! measured times. If |t| exceeds 4.5, the times differ. A comparison that stops at the first difference
//! is the control: if its two classes are not distinguished, the measurement is too coarse.

use std::{
    future::Future as _,
    hint::black_box,
    pin::pin,
    task::{Context, Waker},
    time::Instant,
};

use keyward::{
    Actor, ApiKeys, Hasher, KeyFormat, MemoryStore, NewKey, Owner, SecretDigest, Sha256Hasher,
    VerifyRequest, secret::Checksum, verify::CacheOptions,
};
use tokio::runtime::Runtime;

fn main() {
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let runtime = Runtime::new().expect("threads");
    let _entered = runtime.enter();
    println!("Welch's t of {SAMPLES} samples; if |t| > {THRESHOLD}, the times differ");

    let secret: [u8; 32] =
        Sha256Hasher.digest(b"secret").to_bytes()[3..].try_into().expect("32 bytes");
    let mut near = secret;
    near[31] ^= 1;
    let far = secret.map(|byte| !byte);
    let control = t(&[vec![near], vec![far]], |guess| {
        black_box(black_box(&secret).iter().zip(black_box(guess)).all(|(a, b)| a == b));
    });
    report("control: comparison that stops early", control);

    let stored = digest(secret);
    let compare = |guess: &SecretDigest| {
        black_box(black_box(&stored).ct_eq(black_box(guess)));
    };
    let [secret, near, far] = [secret, near, far].map(|bytes| vec![digest(bytes)]);
    report("digests: last byte wrong, all bytes wrong", t(&[near, far.clone()], compare));
    report("digests: equal, all bytes wrong", t(&[secret, far], compare));

    for cached in [false, true] {
        let keys = keys(cached);
        let valid: Vec<_> = (0..SECRETS).map(|n| runtime.block_on(issue(&keys, n))).collect();
        let near: Vec<_> = valid.iter().flat_map(|text| variants(text)).collect();
        let far: Vec<_> = near.iter().map(|_| unknown(&keys)).collect();
        for text in [&valid, &near, &far].into_iter().flatten() {
            let _ = runtime.block_on(keys.verify(text, &VerifyRequest::new()));
        }
        let ask = |text: &String| poll(&keys, text);
        let what = if cached { "cached" } else { "uncached" };
        report(&format!("{what}: last character wrong, unknown"), t(&[near, far.clone()], ask));
        // Not a secret: the response itself shows which of the two it is.
        report(&format!("{what}: valid, unknown (for comparison)"), t(&[valid, far], ask));
    }
    assert!(
        control.abs() > THRESHOLD,
        "the control was not distinguished: the machine is too busy"
    );
}

/// Each key has its own owner, because an owner may have only 5 keys by default.
async fn issue(keys: &ApiKeys, n: usize) -> String {
    let owner = Owner::new("acme", &format!("ada-{n}")).expect("plain words");
    let new = NewKey::new(&owner, "ci").expect("a plain word");
    let issued = keys.issue(new, &Actor::system("bench")).await.expect("memory");
    issued.secret.expose().to_owned()
}

/// Variants with each other character in the last position.
fn variants(text: &str) -> impl Iterator<Item = String> {
    let (begin, last) = text.split_at(text.len() - 1);
    let characters = ('0'..='9').chain('A'..='Z').chain('a'..='z');
    let others = characters.filter(move |other| !last.starts_with(*other));
    others.map(move |other| format!("{begin}{other}"))
}

fn unknown(keys: &ApiKeys) -> String {
    let secret = keys.formats().current().generate().expect("randomness");
    secret.expose().to_owned()
}

/// Without a checksum, so that a key with a wrong character is looked up.
fn keys(cached: bool) -> ApiKeys {
    let format = KeyFormat::builder("lc").checksum(Checksum::None).build().expect("a plain word");
    let builder = ApiKeys::builder(MemoryStore::new(), format);
    // The cache holds all keys of this benchmark, and lookups of unknown keys are not limited.
    let roomy = CacheOptions::default().max_unknown(1_000_000).unknown_lookups_per_second(u32::MAX);
    if cached { builder.cache(roomy).build() } else { builder.no_cache().build() }
}

fn digest(bytes: [u8; 32]) -> SecretDigest {
    SecretDigest::from_parts(Sha256Hasher.tag(), bytes)
}

fn poll(keys: &ApiKeys, text: &str) {
    let request = VerifyRequest::new();
    let mut verify = pin!(keys.verify(text, &request));
    let mut context = Context::from_waker(Waker::noop());
    while black_box(verify.as_mut().poll(&mut context)).is_pending() {
        std::thread::yield_now();
    }
}

/// Welch's t of the times of two classes, without the slowest 10%, which were interrupted.
///
/// All inputs are copied to the same place, because the location in memory influences the time.
fn t<T: Clone>(classes: &[Vec<T>; 2], work: impl Fn(&T)) -> f64 {
    let (mut times, mut input) = ([Vec::new(), Vec::new()], classes[0][0].clone());
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..SAMPLES {
        // Xorshift: any order suffices that does not alternate.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let class = (random >> 32) as usize % 2;
        input.clone_from(&classes[class][(random >> 40) as usize % classes[class].len()]);
        let start = Instant::now();
        (0..CALLS_PER_SAMPLE).for_each(|_| work(&input));
        times[class].push(start.elapsed().as_nanos() as f64);
    }
    let mut all = times.concat();
    all.sort_by(f64::total_cmp);
    let slow = all[all.len() * 9 / 10];
    let [a, b] = times.map(|times| moments(times.into_iter().filter(|time| *time < slow)));
    (a.mean - b.mean) / (a.variance / a.count + b.variance / b.count).sqrt()
}

struct Moments {
    count: f64,
    mean: f64,
    variance: f64,
}

fn moments(times: impl Iterator<Item = f64>) -> Moments {
    let times: Vec<f64> = times.collect();
    let count = times.len() as f64;
    let mean = times.iter().sum::<f64>() / count;
    let variance = times.iter().map(|time| (time - mean).powi(2)).sum::<f64>() / (count - 1.0);
    Moments { count, mean, variance }
}

fn report(what: &str, t: f64) {
    let verdict = if t.abs() > THRESHOLD { "differ" } else { "do not differ" };
    println!("  {what:<44} t = {t:>8.1}  {verdict}");
}

const SAMPLES: usize = 200_000;
/// Many, because the position of a key in a map is random. Each has 61 wrong variants.
const SECRETS: usize = 1_000;
const CALLS_PER_SAMPLE: usize = 8;
const THRESHOLD: f64 = 4.5;
