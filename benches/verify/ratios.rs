//! Two things beside each other, on a machine that others use, too.
//!
//! They make it slower for a moment or for a minute, and not everything alike: a digest waits for
//! itself and leaves half of the processor to a neighbour, other work does not. So both are measured
//! in many short turns, over a third of a minute at least. Told is the ratio of their quiet turns,
//! those of which a tenth was faster, and beside it the median of the ratios of all turns.

use std::time::{Duration, Instant};

#[derive(Default)]
pub struct Ratios {
    lines: Vec<Line>,
    told: Vec<String>,
}

struct Line {
    what: String,
    turns: usize,
    /// Both want the same of the machine.
    alike: bool,
    /// Before the turns of a round: others had the processor's caches, and accounts are asked again
    /// after a while.
    warm_up: Box<dyn Fn()>,
    /// How long two things take, of which the first is told as a multiple of the second.
    turn: Box<dyn FnMut() -> [Duration; 2]>,
    took: Vec<[Duration; 2]>,
}

impl Ratios {
    /// How much longer the one takes than the other, both with any number below `count`.
    pub fn add(
        &mut self,
        what: &str,
        count: usize,
        one: impl Fn(usize) + Clone + 'static,
        other: impl Fn(usize) + Clone + 'static,
    ) {
        let (mut next, mut next_other) = (rotation(count), rotation(count));
        // Elsewhere, or the one would find in the processor's cache what the other has just used: where
        // there are more keys than are asked for in a turn.
        (0..count / 2).for_each(|_| _ = next_other());
        let all = (one.clone(), other.clone());
        let warm_up = move || {
            (0..count).for_each(&all.0);
            (0..count).for_each(&all.1);
        };
        self.push(what, TURNS, false, warm_up, move || {
            let one = time(|| (0..PER_TURN).for_each(|_| one(next())));
            [one, time(|| (0..PER_TURN).for_each(|_| other(next_other())))]
        });
    }

    /// The same of what wants the same of the machine, and is timed elsewhere.
    pub fn add_alike(
        &mut self,
        what: &str,
        warm_up: impl Fn() + 'static,
        turn: impl FnMut() -> [Duration; 2] + 'static,
    ) {
        self.push(what, TURNS / 4, true, warm_up, turn);
    }

    fn push(
        &mut self,
        what: &str,
        turns: usize,
        alike: bool,
        warm_up: impl Fn() + 'static,
        turn: impl FnMut() -> [Duration; 2] + 'static,
    ) {
        let (what, warm_up, turn) = (what.into(), Box::new(warm_up), Box::new(turn));
        self.lines.push(Line { what, turns, alike, warm_up, turn, took: Vec::new() });
    }

    /// Takes the turns of all that was added; then it is gone, and no task of it disturbs the next.
    pub fn measure(&mut self) {
        let begun = Instant::now();
        while begun.elapsed() < A_WHILE {
            for line in &mut self.lines {
                (line.warm_up)();
                line.took.extend((0..line.turns).map(|_| (line.turn)()));
            }
        }
        self.told.extend(self.lines.drain(..).map(|line| line.told()));
    }

    pub fn print(&self) {
        println!("\nratios to a bare SHA-256 of the same key; of threads: to one thread");
        println!("  {:<32} {:>6} {:>7}", "", "quiet", "median");
        self.told.iter().for_each(|line| println!("  {line}"));
    }
}

impl Line {
    fn told(&self) -> String {
        let quiet = if self.alike { String::new() } else { format!("{:.2}", self.quiet()) };
        format!("{:<32} {quiet:>6} {:>7.2}", self.what, self.median())
    }

    fn quiet(&self) -> f64 {
        let tenth = |which: usize| at(0.1, self.took.iter().map(|took| took[which].as_secs_f64()));
        tenth(0) / tenth(1)
    }

    fn median(&self) -> f64 {
        at(0.5, self.took.iter().map(|[one, other]| one.as_secs_f64() / other.as_secs_f64()))
    }
}

/// The number below which there is this part of all.
fn at(part: f64, numbers: impl Iterator<Item = f64>) -> f64 {
    let mut numbers: Vec<f64> = numbers.collect();
    numbers.sort_by(f64::total_cmp);
    numbers[(numbers.len() as f64 * part) as usize]
}

fn time(work: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    work();
    begun.elapsed()
}

/// Goes through all keys in an order that no prefetcher guesses.
pub fn rotation(count: usize) -> impl FnMut() -> usize {
    let mut n = 0usize;
    move || {
        n = (n + 611_953) % count;
        n
    }
}

const A_WHILE: Duration = Duration::from_secs(20);
const TURNS: usize = 20;
const PER_TURN: usize = 1_000;
