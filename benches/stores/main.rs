//! What the stores cost beside the bare equivalent, on one machine in one run.
//!
//! `cargo bench --bench stores` measures with a million keys and takes some minutes; `KEYS=10000`
//! is for a quick look. `STORES=postgres,sqlite` picks some. Each comparison takes turns between
//! the two ways, so that whatever else the machine does hits both.

mod cached;
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
    // `cargo test --all-targets` starts it as well, without this.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let keys = number("KEYS", 1_000_000);
    let wanted =
        std::env::var("STORES").unwrap_or_else(|_| "memory,cached,sqlite,postgres,redis".into());
    for store in wanted.split(',') {
        println!("\n{store}, {keys} keys");
        match store {
            "memory" => memory::measure(keys).await,
            "cached" => cached::measure(keys).await,
            "sqlite" => sqlite::measure(keys).await,
            "postgres" => postgres::measure(keys).await,
            "redis" => redis::measure(keys).await,
            other => panic!("no store {other}"),
        }
    }
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

/// The digest of one of the keys, from 1 on: `sha256('secret' || n)`, as the databases say it.
fn digest(n: u64) -> SecretDigest {
    Sha256Hasher.digest(format!("secret{n}").as_bytes())
}

/// Some key for the `n`th call: all over the table, so that no page is warmer than others.
fn pick(n: u64, keys: u64) -> u64 {
    (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) % keys + 1
}
