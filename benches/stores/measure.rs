//! Measures two implementations of the same operation alternately.

use std::{fs, time::Instant};

use tokio::task::JoinSet;

/// Prints the latency of sequential calls.
///
/// Runs in a spawned task: the main task has a separate thread, so each wake-up would cross threads.
pub async fn latency<A, B>(
    name: &'static str,
    target: f64,
    ours: impl Fn(u64) -> A + Send + Sync + 'static,
    bare: impl Fn(u64) -> B + Send + Sync + 'static,
) where
    A: Future<Output = ()> + Send,
    B: Future<Output = ()> + Send,
{
    let pairs = tokio::spawn(async move {
        let mut pairs = Vec::new();
        for round in 0..=ROUNDS {
            let calls = round * CALLS..(round + 1) * CALLS;
            let pair = (sequential(&ours, calls.clone()).await, sequential(&bare, calls).await);
            pairs.push(pair);
        }
        pairs
    });
    let pairs = pairs.await.expect("no call fails");
    // The first round warms up connections and query plans.
    let [ours, bare] = medians(&pairs[1..]);
    let ratio = median(pairs[1..].iter().map(|(ours, bare)| ours / bare));
    let (ours, bare) = (ours * 1e6, bare * 1e6);
    println!("  {name}: {ours:.1} µs, bare {bare:.1} µs: ratio {ratio:.2} (target ≤ {target})");
}

/// Prints the number of calls per second that 64 tasks complete concurrently.
pub async fn throughput<A, B>(
    name: &str,
    target: f64,
    ours: impl Fn(u64) -> A + Clone + Send + 'static,
    bare: impl Fn(u64) -> B + Clone + Send + 'static,
) where
    A: Future<Output = ()> + Send,
    B: Future<Output = ()> + Send,
{
    let mut pairs = Vec::new();
    for round in 0..=ROUNDS / 4 {
        let first = round * CALLS * TASKS;
        pairs.push((concurrent(&ours, first).await, concurrent(&bare, first).await));
    }
    let [ours, bare] = medians(&pairs[1..]);
    let ratio = median(pairs[1..].iter().map(|(ours, bare)| ours / bare));
    println!("  {name}: {ours:.0}/s, bare {bare:.0}/s: ratio {ratio:.2} (target ≥ {target})");
}

/// Prints a total size and the size per key.
pub fn per_key(what: &str, bytes: u64, keys: u64) {
    println!("  {what}: {} MB, {} bytes per key", bytes / 1_000_000, bytes / keys);
}

/// Returns the resident memory of this process in bytes.
pub fn resident() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").expect("Linux's /proc");
    let resident = pages.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    resident.expect("the second number of statm") * 4096
}

async fn sequential<F>(call: &impl Fn(u64) -> F, calls: std::ops::Range<u64>) -> f64
where
    F: Future<Output = ()> + Send,
{
    let count = (calls.end - calls.start) as f64;
    let start = Instant::now();
    for n in calls {
        call(n).await;
    }
    start.elapsed().as_secs_f64() / count
}

async fn concurrent<F>(call: &(impl Fn(u64) -> F + Clone + Send + 'static), first: u64) -> f64
where
    F: Future<Output = ()> + Send,
{
    let mut tasks = JoinSet::new();
    let start = Instant::now();
    for task in 0..TASKS {
        let call = call.clone();
        tasks.spawn(async move {
            for n in 0..CALLS {
                call(first + task * CALLS + n).await;
            }
        });
    }
    tasks.join_all().await;
    (TASKS * CALLS) as f64 / start.elapsed().as_secs_f64()
}

fn medians(pairs: &[(f64, f64)]) -> [f64; 2] {
    [median(pairs.iter().map(|pair| pair.0)), median(pairs.iter().map(|pair| pair.1))]
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

const ROUNDS: u64 = 40;
const CALLS: u64 = 250;
const TASKS: u64 = 64;
