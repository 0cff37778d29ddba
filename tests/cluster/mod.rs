//! Four processes on one store, which issue, verify and end keys while nodes, connections and servers fail.
//!
//! Each process writes a history of what it did and when. A checker judges the history by what the crate promises; how
//! it judges is tested with histories that break each promise. `CLUSTER_KEYS` is the number of secrets that end;
//! `CLUSTER_SEED` repeats the random choices of an earlier run. A run that fails keeps its history in `target/tmp`.

mod checker;
mod history;
mod nemesis;
mod node;
mod run;
mod seeded;
mod stores;

use std::{
    collections::HashMap,
    env,
    time::{Duration, Instant},
};

use tokio::sync::Mutex;

use self::{
    history::{Answer, History, now},
    node::BOUND,
    run::Run,
    stores::Store,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_processes_on_sqlite_keep_what_is_promised() {
    keeps_what_is_promised("sqlite", || Some(Store::sqlite())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_processes_on_postgres_keep_what_is_promised() {
    keeps_what_is_promised("postgres", Store::postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_processes_on_redis_keep_what_is_promised() {
    keeps_what_is_promised("redis", Store::redis).await;
}

async fn keeps_what_is_promised(name: &str, start: impl FnOnce() -> Option<Store>) {
    // One cluster at a time: each of them is a load for the whole machine.
    static ALONE: Mutex<()> = Mutex::const_new(());
    let _alone = ALONE.lock().await;
    let Some(store) = start() else { return };
    let seed = number("CLUSTER_SEED").unwrap_or_else(now);
    // By default, the run is bounded also on a slow machine.
    let (target, longest) = match number("CLUSTER_KEYS") {
        Some(target) => (target as usize, Duration::MAX),
        None => (4_000, Duration::from_secs(20)),
    };
    println!("CLUSTER_SEED={seed} CLUSTER_KEYS={target} on {name}");
    let (begun, folder) = (Instant::now(), node::kept_folder(&format!("cluster-{name}-{seed}")));
    let mut run = Run::new(store, folder.clone(), seed, target, longest).await;
    let stuck = run.end_keys().await.err();
    let ended = run.ended;
    run.finish().await;
    let history = History::read(&folder);
    println!("{ended} secrets ended; {} in {:?}", summary(&history), begun.elapsed());
    let violations = checker::check(&history, BOUND);
    let mut shown = HashMap::new();
    for violation in &violations {
        let count = shown.entry(violation.rule).or_insert(0);
        *count += 1;
        if *count <= 5 {
            println!("{violation}");
        }
    }
    println!("violations: {shown:?}");
    let count = violations.len();
    assert!(count == 0, "{count} violations: the history is in {}", folder.display());
    assert_eq!(stuck, None, "the history is in {}", folder.display());
    std::fs::remove_dir_all(&folder).unwrap();
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok()?.parse().ok()
}

fn summary(history: &History) -> String {
    let uses =
        |is: fn(&Answer) -> bool| history.uses.iter().filter(|used| is(&used.answer)).count();
    let done = history.changes.iter().filter(|change| change.acknowledged().is_some());
    format!(
        "{} changes, {} acknowledged; {} verifications: {} accepted, {} denied, {} limited, {} unavailable; {} faults",
        history.changes.len(),
        done.count(),
        history.uses.len(),
        uses(|answer| *answer == Answer::Accepted),
        uses(|answer| matches!(answer, Answer::Denied(_))),
        uses(|answer| *answer == Answer::Limited),
        uses(|answer| *answer == Answer::Unavailable),
        history.faults.iter().filter(|fault| fault.name != "stall").count(),
    )
}
