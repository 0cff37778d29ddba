//! Compares two operations on a machine with other load.
//!
//! Other load varies from moment to moment and does not slow all work equally: a digest is a chain of
//! dependent instructions and leaves processor units to a neighbor, other work does not. So both
//! operations are measured alternately in many short turns, for at least 20 seconds. The report has
//! the ratio of quiet turns (the 10th percentile of each side) and the median of the ratios of all turns.

use std::time::{Duration, Instant};

#[derive(Default)]
pub struct Ratios {
    lines: Vec<Line>,
    report: Vec<String>,
}

struct Line {
    name: String,
    /// The number of turns per round.
    turns: usize,
    /// Whether both sides do the same work. Then only the median is reported.
    same_work: bool,
    /// Runs before the turns of a round: other work has used the processor's caches, and cached accounts
    /// may have become stale.
    warm_up: Box<dyn Fn()>,
    /// Returns the times of both sides. The first is reported as a multiple of the second.
    turn: Box<dyn FnMut() -> [Duration; 2]>,
    times: Vec<[Duration; 2]>,
}

impl Ratios {
    /// Adds the ratio of `one` to `other`, each called with numbers below `count`.
    pub fn add(
        &mut self,
        name: &str,
        count: usize,
        one: impl Fn(usize) + Clone + 'static,
        other: impl Fn(usize) + Clone + 'static,
    ) {
        let (mut next, mut next_other) = (rotation(count), rotation(count));
        // The sides start at different keys, so that one does not find in the processor's cache what the
        // other has just used (with more keys than a turn uses).
        (0..count / 2).for_each(|_| _ = next_other());
        let both = (one.clone(), other.clone());
        let warm_up = move || {
            (0..count).for_each(&both.0);
            (0..count).for_each(&both.1);
        };
        self.push(name, TURNS, false, warm_up, move || {
            let one = time(|| (0..PER_TURN).for_each(|_| one(next())));
            [one, time(|| (0..PER_TURN).for_each(|_| other(next_other())))]
        });
    }

    /// Adds the ratio of one call of `one` to the thousandth part of a call of `thousand`.
    pub fn add_one(&mut self, name: &str, one: impl Fn() + 'static, thousand: impl Fn() + 'static) {
        self.push(name, 1, false, || {}, move || [time(&one), time(&thousand) / 1_000]);
    }

    /// Adds the ratio of two runs of the same work that `turn` times itself, such as by several threads.
    pub fn add_threads(
        &mut self,
        name: &str,
        warm_up: impl Fn() + 'static,
        turn: impl FnMut() -> [Duration; 2] + 'static,
    ) {
        self.push(name, TURNS / 4, true, warm_up, turn);
    }

    fn push(
        &mut self,
        name: &str,
        turns: usize,
        same_work: bool,
        warm_up: impl Fn() + 'static,
        turn: impl FnMut() -> [Duration; 2] + 'static,
    ) {
        let (name, warm_up, turn) = (name.into(), Box::new(warm_up), Box::new(turn));
        self.lines.push(Line { name, turns, same_work, warm_up, turn, times: Vec::new() });
    }

    /// Measures all added lines, then drops them, so that their tasks do not disturb the next measurement.
    pub fn measure(&mut self) {
        let start = Instant::now();
        while start.elapsed() < MIN_DURATION {
            for line in &mut self.lines {
                (line.warm_up)();
                line.times.extend((0..line.turns).map(|_| (line.turn)()));
            }
        }
        self.report.extend(self.lines.drain(..).map(|line| line.report()));
    }

    pub fn print(&self) {
        println!("\nratios to one bare SHA-256 of the same key; of threads: to one thread");
        println!("  {:<32} {:>6} {:>7}", "", "quiet", "median");
        self.report.iter().for_each(|line| println!("  {line}"));
    }
}

impl Line {
    fn report(&self) -> String {
        let quiet = if self.same_work { String::new() } else { format!("{:.2}", self.quiet()) };
        format!("{:<32} {quiet:>6} {:>7.2}", self.name, self.median())
    }

    fn quiet(&self) -> f64 {
        let side = |side: usize| self.times.iter().map(move |times| times[side].as_secs_f64());
        quantile(0.1, side(0)) / quantile(0.1, side(1))
    }

    fn median(&self) -> f64 {
        quantile(0.5, self.times.iter().map(|[one, other]| one.as_secs_f64() / other.as_secs_f64()))
    }
}

/// Returns the number below which `part` of the numbers are.
fn quantile(part: f64, numbers: impl Iterator<Item = f64>) -> f64 {
    let mut numbers: Vec<f64> = numbers.collect();
    numbers.sort_by(f64::total_cmp);
    numbers[(numbers.len() as f64 * part) as usize]
}

fn time(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// Returns all keys in turn, in an order that no prefetcher predicts.
pub fn rotation(count: usize) -> impl FnMut() -> usize {
    let mut n = 0usize;
    move || {
        n = (n + 611_953) % count;
        n
    }
}

const MIN_DURATION: Duration = Duration::from_secs(20);
const TURNS: usize = 20;
const PER_TURN: usize = 1_000;
