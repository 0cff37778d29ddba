//! Two ways of doing the same thing, in turns.

use std::{fs, time::Instant};

use tokio::task::JoinSet;

/// How long one call takes, one after the other.
///
/// In a task of its own: the main task has a thread of its own, and would be woken across threads.
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
            let pair = (one_by_one(&ours, calls.clone()).await, one_by_one(&bare, calls).await);
            pairs.push(pair);
        }
        pairs
    });
    let pairs = pairs.await.expect("no call fails");
    // The first round warms up connections and plans.
    let [ours, bare] = medians(&pairs[1..]);
    let ratio = median(pairs[1..].iter().map(|(ours, bare)| ours / bare));
    let (ours, bare) = (ours * 1e6, bare * 1e6);
    println!("  {name}: {ours:.1} µs, bare {bare:.1} µs: ratio {ratio:.2} (target ≤ {target})");
}

/// How many calls a second 64 tasks get done together.
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
        pairs.push((together(&ours, first).await, together(&bare, first).await));
    }
    let [ours, bare] = medians(&pairs[1..]);
    let ratio = median(pairs[1..].iter().map(|(ours, bare)| ours / bare));
    println!("  {name}: {ours:.0}/s, bare {bare:.0}/s: ratio {ratio:.2} (target ≥ {target})");
}

/// Bytes as one prints them.
pub fn per_key(what: &str, bytes: u64, keys: u64) {
    println!("  {what}: {} MB, {} bytes per key", bytes / 1_000_000, bytes / keys);
}

/// What this process holds in memory now.
pub fn resident() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").expect("Linux's /proc");
    let resident = pages.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    resident.expect("the second number of statm") * 4096
}

async fn one_by_one<F>(call: &impl Fn(u64) -> F, calls: std::ops::Range<u64>) -> f64
where
    F: Future<Output = ()> + Send,
{
    let count = (calls.end - calls.start) as f64;
    let begun = Instant::now();
    for n in calls {
        call(n).await;
    }
    begun.elapsed().as_secs_f64() / count
}

async fn together<F>(call: &(impl Fn(u64) -> F + Clone + Send + 'static), first: u64) -> f64
where
    F: Future<Output = ()> + Send,
{
    let mut tasks = JoinSet::new();
    let begun = Instant::now();
    for task in 0..TASKS {
        let call = call.clone();
        tasks.spawn(async move {
            for n in 0..CALLS {
                call(first + task * CALLS + n).await;
            }
        });
    }
    tasks.join_all().await;
    (TASKS * CALLS) as f64 / begun.elapsed().as_secs_f64()
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
