//! Compares look-ups in the stores with the bare equivalent, and measures changes per second, on one machine in one run.
//!
//! `cargo bench -p keyward-tests --bench stores` measures with a million keys and takes several minutes; use
//! `KEYS=10000` for a quick run. `STORES=postgres,sqlite` selects stores. The two sides of a
//! comparison alternate, so that other load on the machine affects both.

mod cached;
mod changes;
mod measure;
mod memory;
mod postgres;
mod redis;
mod sample;
#[path = "../../tests/support/servers/mod.rs"]
#[allow(dead_code, unused_imports)]
mod servers;
mod sqlite;

use keyward::{Hasher, SecretDigest, Sha256Hasher};

#[tokio::main]
async fn main() {
    // `cargo test --all-targets` also starts benches, without this argument.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let keys = number("KEYS", 1_000_000);
    let wanted = std::env::var("STORES")
        .unwrap_or_else(|_| "memory,cached,sqlite,postgres,redis,changes".into());
    println!("{keys} keys for look-ups");
    for store in wanted.split(',') {
        println!("\n{store}");
        match store {
            "memory" => memory::measure(keys).await,
            "cached" => cached::measure(keys).await,
            "sqlite" => sqlite::measure(keys).await,
            "postgres" => postgres::measure(keys).await,
            "redis" => redis::measure(keys).await,
            "changes" => changes::measure().await,
            other => panic!("no store {other}"),
        }
    }
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

/// Returns the digest of the `n`th key, from 1: `sha256('secret' || n)`, as the SQL computes it.
fn digest(n: u64) -> SecretDigest {
    Sha256Hasher.digest(format!("secret{n}").as_bytes())
}

/// Returns the key of the `n`th call: spread over the table, so that all pages are equally warm.
fn pick(n: u64, keys: u64) -> u64 {
    (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) % keys + 1
}
