//! Measures the cost of a verification relative to one bare digest: SHA-256 of the same key by the
//! crate `sha2`.
//!
//! `cargo bench -p keyward-tests --bench verify` measures both in one run and prints the ratios at the end. A filter
//! after `--` selects the criterion benchmarks: `cargo bench -p keyward-tests --bench verify -- compare`. The ratios
//! are always measured; a filter that matches nothing (`-- none`) measures only them.

mod hand_written;
mod other_crates;
mod ratios;
mod service;

use std::{
    hint::black_box,
    sync::{Arc, Barrier},
    thread,
    time::{Duration, Instant},
};

use criterion::{Criterion, Throughput};
use keyward::{Hasher, KeyFormat, Owner, Pepper};
use sha2::Digest;
use subtle::ConstantTimeEq;
use tokio::runtime::{Handle, Runtime};

use self::{
    hand_written::HandWritten,
    other_crates::{Prefixed, Simplified},
    ratios::{Ratios, rotation},
    service::Service,
};

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
        ratios.measure();
    }
    rejections(&mut criterion, &mut ratios, &runtime);
    other_crates(&mut ratios);
    digests(&mut ratios);
    ratios.measure();
    compare(&mut criterion);
    issue(&mut criterion, &runtime);
    threads(&mut ratios, &runtime);
    ratios.measure();
    criterion.final_summary();
    ratios.print();
}

/// Measures checksum, digest, constant-time comparison, expiry and access. The cached keys also have a
/// rate; the service without a cache has default options except `no_cache`.
fn valid_keys(criterion: &mut Criterion, ratios: &mut Ratios, runtime: &Runtime, count: usize) {
    let mut group = criterion.benchmark_group(format!("valid/{count}"));
    group.throughput(Throughput::Elements(1));
    let service = Arc::new(Service::cached(runtime, count));
    let uncached = Service::uncached(runtime, count);
    let bare = bare(&service);
    let shared = service.clone();
    let cached = move |n: usize| shared.verify(n);
    let mut next = rotation(count);
    group.bench_function("bare digest", |b| b.iter(|| bare(next())));
    group.bench_function("cached", |b| b.iter(|| cached(next())));
    group.bench_function("uncached", |b| b.iter(|| uncached.verify(next())));
    group.finish();
    let uncached = Arc::new(uncached);
    ratios.add(&format!("cached verify, {count} keys"), count, cached, bare.clone());
    let map = HandWritten::of(service.secrets());
    let secrets = service.clone();
    let by_hand = Arc::new(move |n: usize| assert!(map.verify(secrets.secret(n), "builds:read")));
    ratios.add(
        &format!("hand-written map, {count} keys"),
        count,
        move |n| by_hand(n),
        bare.clone(),
    );
    let uncached = move |n: usize| uncached.verify(n);
    ratios.add(&format!("uncached verify, {count} keys"), count, uncached, bare);
}

fn rejections(criterion: &mut Criterion, ratios: &mut Ratios, runtime: &Runtime) {
    let mut group = criterion.benchmark_group("rejected");
    let service = Arc::new(Service::cached(runtime, COUNT));
    let format = service.keys.formats().current();
    // Within the limit of look-ups for unknown keys, so that all of them are cached as unknown.
    let unknown: Arc<[_]> = (0..400).map(|_| format.generate().unwrap()).collect();
    unknown.iter().for_each(|secret| service.check(secret.expose(), false));
    let typos: Arc<[_]> = service.typos().into();
    let bare = bare(&service);
    let shared = service.clone();
    let unknown = move |n: usize| shared.check(unknown[n % unknown.len()].expose(), false);
    let typo = move |n: usize| service.check(&typos[n], false);
    let mut next = rotation(COUNT);
    group.bench_function("unknown key", |b| b.iter(|| unknown(next())));
    group.bench_function("wrong checksum", |b| b.iter(|| typo(next())));
    group.finish();
    ratios.add("unknown key", COUNT, unknown, bare.clone());
    ratios.add("wrong checksum", COUNT, typo, bare);
}

/// Measures the other crates for API keys.
fn other_crates(ratios: &mut Ratios) {
    let (prefixed, simplified) = (Arc::new(Prefixed::new(COUNT)), Simplified::new());
    let format = KeyFormat::builder("lc").build().unwrap();
    let secrets: Arc<[_]> = (0..COUNT).map(|_| format.generate().unwrap()).collect();
    let bare = move |n: usize| _ = black_box(sha2::Sha256::digest(secrets[n].expose()));
    let digests = bare.clone();
    ratios.add("prefixed-api-key, 1000 keys", COUNT, move |n| assert!(prefixed.verify(n)), bare);
    ratios.add_one(
        "api-keys-simplified",
        move || assert!(simplified.verify()),
        move || {
            (0..COUNT).for_each(&digests);
        },
    );
}

/// Measures the digest, which is the same for every key.
fn digests(ratios: &mut Ratios) {
    let format = KeyFormat::builder("lc").build().unwrap();
    let secrets: Arc<[_]> = (0..COUNT).map(|_| format.generate().unwrap()).collect();
    let pepper = Pepper::new(1, vec![7; 32]).unwrap();
    let peppered = Arc::new(keyward::secret::HmacSha256Hasher::new(pepper));
    let hashed = |hash: fn(&keyward::HmacSha256Hasher, &[u8])| {
        let (secrets, peppered) = (secrets.clone(), peppered.clone());
        move |n: usize| hash(&peppered, secrets[n].expose().as_bytes())
    };
    let bare = hashed(|_, text| _ = black_box(sha2::Sha256::digest(text)));
    let digest = hashed(|_, text| _ = black_box(keyward::Sha256Hasher.digest(text)));
    let peppered = hashed(|peppered, text| _ = black_box(peppered.digest(text)));
    ratios.add("digest", COUNT, digest, bare.clone());
    ratios.add("digest with a pepper", COUNT, peppered, bare);
}

/// Compares two digests as four lanes, and as slices by `subtle`.
fn compare(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("compare");
    let (a, b) = (keyward::Sha256Hasher.digest(b"a"), keyward::Sha256Hasher.digest(b"a"));
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
            // An owner may have five keys by default, so each key has a separate owner.
            n += 1;
            service.owner = Owner::new("acme", &format!("eve-{n}")).unwrap();
            runtime.block_on(service.issue())
        });
    });
}

/// Measures the throughput of two threads relative to one: each uses half of the keys, or all use one.
fn threads(ratios: &mut Ratios, runtime: &Runtime) {
    let service = Arc::new(Service::cached(runtime, COUNT));
    let typos: Arc<[_]> = service.typos().into();
    let mut add = |what: &str, work: fn(&Service, &[String], usize)| {
        let (shared, typos, handle) = (service.clone(), typos.clone(), runtime.handle().clone());
        let service = service.clone();
        let warm_up = move || (0..COUNT).for_each(|n| service.verify(n));
        ratios.add_threads(what, warm_up, move || {
            let work = |n: usize| work(&shared, &typos, n);
            [2 * elapsed(&handle, 1, &work), elapsed(&handle, 2, &work)]
        });
    };
    // What the second processor core is worth.
    add("two threads, bare digests", |service, _, n| service.bare(n));
    add("two threads, different keys", |service, _, n| service.verify(n));
    add("two threads, one key", |service, _, _| service.verify(7));
    add("two threads, wrong checksums", |service, typos, n| service.check(&typos[n], false));
}

/// Returns the time from the start of the first thread to the end of the last.
fn elapsed(runtime: &Handle, threads: usize, work: &(dyn Fn(usize) + Sync)) -> Duration {
    let start = &Barrier::new(threads);
    let worker = |thread: usize| {
        let mut next = rotation(COUNT / 2);
        move || {
            let _entered = runtime.enter();
            start.wait();
            let started = Instant::now();
            (0..PER_THREAD).for_each(|_| work(thread * COUNT / 2 + next()));
            (started, Instant::now())
        }
    };
    let (started, ended): (Vec<_>, Vec<_>) = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|thread| scope.spawn(worker(thread))).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).unzip()
    });
    ended.into_iter().max().unwrap() - started.into_iter().min().unwrap()
}

/// Computes the bare digest of the `n`th key.
fn bare(service: &Arc<Service>) -> impl Fn(usize) + Clone + use<> {
    let service = service.clone();
    move |n| service.bare(n)
}

const COUNT: usize = 1_000;
const PER_THREAD: usize = 20_000;
