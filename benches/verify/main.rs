//! What a verification costs beside the one hash that it cannot do without: `Sha256Hasher::digest` of the
//! crate `sha2`, of the same key.
//!
//! `cargo bench --bench verify` measures both in one run and prints the ratios at the end. A word
//! behind `--` picks what criterion measures: `cargo bench --bench verify -- compare`. The ratios come
//! in any case; alone, if nothing is called so.

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
    refusals(&mut criterion, &mut ratios, &runtime);
    digests(&mut ratios);
    ratios.measure();
    compare(&mut criterion);
    issue(&mut criterion, &runtime);
    threads(&mut ratios, &runtime);
    ratios.measure();
    criterion.final_summary();
    ratios.print();
}

/// Checksum, digest, constant-time comparison, expiry and access; from the cache with a rate limit
/// too, without one as a service has it that set nothing but `no_cache`.
fn valid_keys(criterion: &mut Criterion, ratios: &mut Ratios, runtime: &Runtime, count: usize) {
    let mut group = criterion.benchmark_group(format!("valid/{count}"));
    group.throughput(Throughput::Elements(1));
    let service = Arc::new(Service::cached(runtime, count));
    let uncached = Service::uncached(runtime, count);
    let bare = bare(&service);
    let cached = move |n: usize| service.verify(n);
    let mut next = rotation(count);
    group.bench_function("bare digest", |b| b.iter(|| bare(next())));
    group.bench_function("cached", |b| b.iter(|| cached(next())));
    group.bench_function("uncached", |b| b.iter(|| uncached.verify(next())));
    group.finish();
    let uncached = Arc::new(uncached);
    ratios.add(&format!("cached verify, {count} keys"), count, cached, bare.clone());
    let uncached = move |n: usize| uncached.verify(n);
    ratios.add(&format!("uncached verify, {count} keys"), count, uncached, bare);
}

fn refusals(criterion: &mut Criterion, ratios: &mut Ratios, runtime: &Runtime) {
    let mut group = criterion.benchmark_group("refused");
    let service = Arc::new(Service::cached(runtime, COUNT));
    let format = service.keys.formats().current();
    // Within the allowance of look-ups for unknown keys: afterwards they are known as such.
    let unknown: Arc<[_]> = (0..400).map(|_| format.generate().unwrap()).collect();
    unknown.iter().for_each(|secret| service.ask(secret.expose(), false));
    let typos: Arc<[_]> = service.typos().into();
    let bare = bare(&service);
    let asked = service.clone();
    let unknown = move |n: usize| asked.ask(unknown[n % unknown.len()].expose(), false);
    let typo = move |n: usize| service.ask(&typos[n], false);
    let mut next = rotation(COUNT);
    group.bench_function("unknown key", |b| b.iter(|| unknown(next())));
    group.bench_function("wrong checksum", |b| b.iter(|| typo(next())));
    group.finish();
    ratios.add("unknown key", COUNT, unknown, bare.clone());
    ratios.add("wrong checksum", COUNT, typo, bare);
}

/// The part of a verification that is the same for every key.
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

/// Two digests: as four lanes, and as `subtle` compares slices.
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
            // Of an owner of its own each, who by default may have five.
            n += 1;
            service.owner = Owner::new("acme", &format!("eve-{n}")).unwrap();
            runtime.block_on(service.issue())
        });
    });
}

/// How much more two threads get done than one: each of them with half of the keys, or with one.
fn threads(ratios: &mut Ratios, runtime: &Runtime) {
    let service = Arc::new(Service::cached(runtime, COUNT));
    let typos: Arc<[_]> = service.typos().into();
    let mut add = |what: &str, work: fn(&Service, &[String], usize)| {
        let (asked, typos, handle) = (service.clone(), typos.clone(), runtime.handle().clone());
        let service = service.clone();
        let warm_up = move || (0..COUNT).for_each(|n| service.verify(n));
        ratios.add_alike(what, warm_up, move || {
            let work = |n: usize| work(&asked, &typos, n);
            [2 * at_once(&handle, 1, &work), at_once(&handle, 2, &work)]
        });
    };
    add("two threads, different keys", |service, _, n| service.verify(n));
    add("two threads, one key", |service, _, _| service.verify(7));
    add("two threads, wrong checksums", |service, typos, n| service.ask(&typos[n], false));
}

/// How long it takes from when the first of so many threads begins until the last is through.
fn at_once(runtime: &Handle, threads: usize, work: &(dyn Fn(usize) + Sync)) -> Duration {
    let start = &Barrier::new(threads);
    let worker = |thread: usize| {
        let mut next = rotation(COUNT / 2);
        move || {
            let _entered = runtime.enter();
            start.wait();
            let begun = Instant::now();
            (0..PER_THREAD).for_each(|_| work(thread * COUNT / 2 + next()));
            (begun, Instant::now())
        }
    };
    let (begun, ended): (Vec<_>, Vec<_>) = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|thread| scope.spawn(worker(thread))).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).unzip()
    });
    ended.into_iter().max().unwrap() - begun.into_iter().min().unwrap()
}

/// What a verification cannot do without.
fn bare(service: &Arc<Service>) -> impl Fn(usize) + Clone + use<> {
    let service = service.clone();
    move |n| service.bare(n)
}

const COUNT: usize = 1_000;
const PER_THREAD: usize = 20_000;
