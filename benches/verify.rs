//! What a verification costs beside the one hash that it cannot do without: `Sha256::digest` of the
//! crate `sha2`, of the same key.
//!
//! `cargo bench --bench verify` measures both in one run and prints the ratios at the end. A word
//! behind `--` picks: `cargo bench --bench verify -- compare`.

use std::{
    hint::black_box,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use criterion::{Criterion, Throughput};
use keyward::{
    Access, Actor, ApiKeys, Expiry, Hasher, KeyFormat, MemoryStore, NewKey, Owner, Pepper, Request,
    cache::CacheOptions,
    keys::{ApiKeysBuilder, Issued},
    limits::{KeyLimits, Rate},
};
use sha2::Digest;
use subtle::ConstantTimeEq;
use tokio::runtime::Runtime;

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1_500))
        .sample_size(50)
        .configure_from_args();
    let mut ratios = Ratios::default();
    let runtime = Runtime::new().unwrap();
    let _entered = runtime.enter();
    for count in [1_000, 100_000] {
        valid_keys(&mut criterion, &mut ratios, &runtime, count);
    }
    refusals(&mut criterion, &mut ratios, &runtime);
    digests(&mut ratios);
    compare(&mut criterion);
    issue(&mut criterion, &runtime);
    threads(&mut ratios, &runtime);
    criterion.final_summary();
    ratios.print();
}

/// Checksum, digest, constant-time comparison, expiry and access; from the cache with a rate limit
/// too, without one as a service has it that set nothing but `no_cache`.
fn valid_keys(criterion: &mut Criterion, ratios: &mut Ratios, runtime: &Runtime, count: usize) {
    let mut group = criterion.benchmark_group(format!("valid/{count}"));
    group.throughput(Throughput::Elements(1));
    let service = Service::cached(runtime, count);
    let uncached = Service::uncached(runtime, count);
    let bare = |n: usize| service.bare(n);
    let cached = |n: usize| service.verify(n);
    let uncached = |n: usize| uncached.verify(n);
    let mut next = rotation(count);
    group.bench_function("bare digest", |b| b.iter(|| bare(next())));
    group.bench_function("cached", |b| b.iter(|| cached(next())));
    group.bench_function("uncached", |b| b.iter(|| uncached(next())));
    group.finish();
    ratios.add(&format!("cached verify, {count} keys"), count, bare, cached);
    ratios.add(&format!("uncached verify, {count} keys"), count, bare, uncached);
}

fn refusals(criterion: &mut Criterion, ratios: &mut Ratios, runtime: &Runtime) {
    let mut group = criterion.benchmark_group("refused");
    let service = Service::cached(runtime, COUNT);
    let unknown: Vec<_> =
        (0..COUNT).map(|_| service.keys.formats().current().generate().unwrap()).collect();
    let typos: Vec<String> = service.issued.iter().map(typo).collect();
    let verify = |text: &str| {
        let answer = runtime.block_on(service.keys.verify(text, &Request::new()));
        assert!(answer.is_err());
    };
    // Within the allowance of look-ups for unknown keys: afterwards they are known as such.
    for secret in &unknown[..400] {
        verify(secret.expose());
    }
    let bare = |n: usize| service.bare(n);
    let unknown = |n: usize| poll(&service.keys, unknown[n % 400].expose(), false);
    let typo = |n: usize| poll(&service.keys, &typos[n], false);
    let mut next = rotation(COUNT);
    group.bench_function("unknown key", |b| b.iter(|| unknown(next())));
    group.bench_function("wrong checksum", |b| b.iter(|| typo(next())));
    group.finish();
    ratios.add("unknown key", COUNT, bare, unknown);
    ratios.add("wrong checksum", COUNT, bare, typo);
}

/// The part of a verification that is the same for every key.
fn digests(ratios: &mut Ratios) {
    let format = KeyFormat::builder("lc").build().unwrap();
    let secrets: Vec<_> = (0..COUNT).map(|_| format.generate().unwrap()).collect();
    let pepper = Pepper::new(1, vec![7; 32]).unwrap();
    let peppered = keyward::HmacSha256::new(pepper);
    let text = |n: usize| secrets[n].expose().as_bytes();
    let bare = |n: usize| _ = black_box(sha2::Sha256::digest(text(n)));
    ratios.add("digest", COUNT, bare, |n| _ = black_box(keyward::Sha256.digest(text(n))));
    ratios.add("digest with a pepper", COUNT, bare, |n| _ = black_box(peppered.digest(text(n))));
}

/// Two digests: as four lanes, and as `subtle` compares slices.
fn compare(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("compare");
    let (a, b) = (keyward::Sha256.digest(b"a"), keyward::Sha256.digest(b"a"));
    let (bytes_a, bytes_b) = (a.to_bytes(), b.to_bytes());
    group.bench_function("lanes", |bench| bench.iter(|| black_box(&a).ct_eq(black_box(&b))));
    group.bench_function("bytewise", |bench| {
        bench.iter(|| black_box(&bytes_a[..]).ct_eq(black_box(&bytes_b[..])));
    });
    group.finish();
}

fn issue(criterion: &mut Criterion, runtime: &Runtime) {
    let mut service = Service::cached(runtime, 0);
    let mut n = 0;
    criterion.bench_function("issue", |bench| {
        bench.iter(|| {
            // Of an owner of its own each, who by default may have five.
            n += 1;
            service.owner = Owner::new("acme", &format!("eve-{n}")).unwrap();
            runtime.block_on(service.issue())
        });
    });
}

/// How much more two threads get done than one.
fn threads(ratios: &mut Ratios, runtime: &Runtime) {
    let service = Service::cached(runtime, COUNT);
    let typos: Vec<String> = service.issued.iter().map(typo).collect();
    let run = |threads: usize, work: &(dyn Fn(usize, usize) + Sync)| {
        let start = Barrier::new(threads);
        let took = thread::scope(|scope| {
            let workers: Vec<_> = (0..threads)
                .map(|thread| {
                    let start = &start;
                    scope.spawn(move || {
                        let _entered = runtime.enter();
                        start.wait();
                        let begun = Instant::now();
                        (0..ROUNDS).for_each(|n| work(thread, n));
                        begun.elapsed()
                    })
                })
                .collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).max().unwrap()
        });
        (threads * ROUNDS) as f64 / took.as_secs_f64()
    };
    let apart = |thread: usize, n: usize| service.verify((2 * n + thread) % COUNT);
    let same = |_: usize, _: usize| service.verify(7);
    let typos =
        |thread: usize, n: usize| poll(&service.keys, &typos[(2 * n + thread) % COUNT], false);
    ratios.note("two threads, different keys", best(|| run(2, &apart) / run(1, &apart)));
    ratios.note("two threads, one key", best(|| run(2, &same) / run(1, &same)));
    ratios.note("two threads, wrong checksums", best(|| run(2, &typos) / run(1, &typos)));
}

struct Service {
    keys: ApiKeys,
    owner: Owner,
    rate: Option<Rate>,
    issued: Vec<Issued>,
}

impl Service {
    /// With a rate that no benchmark exceeds.
    fn cached(runtime: &Runtime, count: usize) -> Self {
        let rate = Rate::per_second(10).burst(u32::MAX);
        // A cache that has to push keys out is another matter.
        let roomy = CacheOptions::default().max_keys(2 * count);
        Self::new(builder().cache(roomy).build(), Some(rate), runtime, count)
    }

    fn uncached(runtime: &Runtime, count: usize) -> Self {
        Self::new(builder().no_cache().build(), None, runtime, count)
    }

    fn new(keys: ApiKeys, rate: Option<Rate>, runtime: &Runtime, count: usize) -> Self {
        let owner = Owner::new("acme", "ada").unwrap();
        let mut service = Self { keys, owner, rate, issued: Vec::new() };
        for n in 0..count {
            // An owner of its own each, or counting the active ones makes it quadratic.
            service.owner = Owner::new("acme", &format!("ada-{n}")).unwrap();
            let issued = runtime.block_on(service.issue());
            service.issued.push(issued);
        }
        // The first uses are written, and the follower begins, before anything is measured.
        for _ in 0..2 {
            (0..count).for_each(|n| service.ask(runtime, n));
            runtime.block_on(service.keys.flush()).unwrap();
        }
        service
    }

    async fn issue(&self) -> Issued {
        let new = NewKey::new(&self.owner, "ci")
            .unwrap()
            .access(Access::only(["builds:read"]).unwrap())
            .expiry(Expiry::YEAR)
            .limits(KeyLimits { rate: self.rate, ..KeyLimits::default() });
        self.keys.issue(new, &Actor::system("bench")).await.unwrap()
    }

    fn secret(&self, n: usize) -> &[u8] {
        self.issued[n].secret.expose().as_bytes()
    }

    fn ask(&self, runtime: &Runtime, n: usize) {
        let request = Request::new().require(&["builds:read"]);
        runtime.block_on(self.keys.verify(self.secret(n), &request)).unwrap();
    }

    fn bare(&self, n: usize) {
        black_box(sha2::Sha256::digest(self.secret(n)));
    }

    fn verify(&self, n: usize) {
        poll(&self.keys, self.secret(n), true);
    }
}

fn builder() -> ApiKeysBuilder {
    ApiKeys::builder(MemoryStore::new(), KeyFormat::builder("lc").build().unwrap())
}

/// Without a runtime's `block_on`, which would cost more than what is measured.
fn poll<T: AsRef<[u8]> + ?Sized>(keys: &ApiKeys, text: &T, good: bool) {
    let request = Request::new().require(&["builds:read"]);
    let mut future = std::pin::pin!(keys.verify(text, &request));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    loop {
        let polled = future.as_mut().poll(&mut context);
        // Looked at where it is: to move an answer costs something, too.
        if let std::task::Poll::Ready(answer) = &polled {
            assert_eq!(black_box(answer).is_ok(), good);
            return;
        }
        thread::yield_now();
    }
}

/// Ratios of two things, taken in many short turns, so that a busy machine disturbs both alike; the
/// median is told.
#[derive(Default)]
struct Ratios(Vec<(String, f64)>);

impl Ratios {
    fn add(&mut self, what: &str, count: usize, base: impl Fn(usize), other: impl Fn(usize)) {
        let (mut next, mut next_base) = (rotation(count), rotation(count));
        // Elsewhere, or the one would find in the processor's cache what the other has just used.
        (0..count / 2).for_each(|_| _ = next_base());
        // Accounts are asked again after a while: for all keys now, and not in the first turns.
        (0..count).for_each(&other);
        let mut ratio = || {
            let took = time(&other, &mut next);
            took / time(&base, &mut next_base)
        };
        let mut ratios: Vec<f64> = (0..TURNS).map(|_| ratio()).collect();
        ratios.sort_by(f64::total_cmp);
        self.note(what, ratios[ratios.len() / 2]);
    }

    fn note(&mut self, what: &str, ratio: f64) {
        self.0.push((what.into(), ratio));
    }

    fn print(&self) {
        println!("\nratios to a bare SHA-256 of the same key; of threads: to one thread");
        for (what, ratio) in &self.0 {
            println!("  {what:<32} {ratio:>6.2}");
        }
    }
}

fn time(work: &dyn Fn(usize), next: &mut dyn FnMut() -> usize) -> f64 {
    let begun = Instant::now();
    (0..PER_TURN).for_each(|_| work(next()));
    begun.elapsed().as_secs_f64()
}

/// Other users of the machine only ever make it slower.
fn best(mut measure: impl FnMut() -> f64) -> f64 {
    (0..7).map(|_| measure()).fold(0.0, f64::max)
}

/// Goes through all keys in an order that no prefetcher guesses.
fn rotation(count: usize) -> impl FnMut() -> usize {
    let mut n = 0usize;
    move || {
        n = (n + 611_953) % count;
        n
    }
}

fn typo(issued: &Issued) -> String {
    let text = issued.secret.expose();
    let last = if text.ends_with('A') { "B" } else { "A" };
    format!("{}{last}", &text[..text.len() - 1])
}

const COUNT: usize = 1_000;
const ROUNDS: usize = 100_000;
const TURNS: usize = 1_001;
const PER_TURN: usize = 1_000;
