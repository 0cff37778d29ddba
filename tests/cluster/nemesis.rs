//! Faults, one after the other: nodes are stopped and killed, connections are cut and frozen, servers are killed.

use super::{
    history::{Fault, Record, now},
    node::{BOUND, Request},
    run::{NODES, Run},
    stores::Store,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// `SIGSTOP` for longer than the bound. The requests of the node wait.
    Stop,
    /// The same, of a node that makes no changes at the time: it has no lock of an SQLite file.
    QuietStop,
    /// `SIGKILL`. Another process takes the place of the node.
    Kill,
    /// The connections of a node are reset, and new ones too.
    Cut,
    /// The connections of a node stay open, and nothing arrives.
    Freeze,
    /// `SIGKILL` of the server, and a restart.
    KillServer,
    FreezeServer,
}

pub struct Nemesis {
    kinds: Vec<Kind>,
    /// Those that are still to come, before all are repeated.
    next: Vec<Kind>,
    active: Option<Active>,
    /// When the next fault begins.
    begins_at: u64,
    faults: usize,
    is_flushing: bool,
    is_on_file: bool,
}

struct Active {
    kind: Kind,
    index: usize,
    process: u32,
    from: u64,
    until: u64,
}

impl Nemesis {
    pub fn new(store: &Store) -> Self {
        let is_on_file = !store.has_server();
        let kinds = match is_on_file {
            true => vec![Kind::Stop, Kind::QuietStop, Kind::QuietStop, Kind::Kill],
            false => vec![
                Kind::Stop,
                Kind::Stop,
                Kind::Kill,
                Kind::Cut,
                Kind::Freeze,
                Kind::KillServer,
                Kind::FreezeServer,
            ],
        };
        Self {
            kinds,
            next: Vec::new(),
            active: None,
            begins_at: 0,
            faults: 0,
            is_flushing: false,
            is_on_file,
        }
    }

    /// Whether each fault has happened, and all is well again.
    pub fn is_over(&self) -> bool {
        self.faults >= self.kinds.len() && self.active.is_none()
    }

    /// Begins or ends a fault, if it is time. Each kind of fault happens, also if no more keys are to end.
    pub fn act(&mut self, run: &mut Run, goes_on: bool) {
        match self.active.take() {
            Some(active) if now() < active.until => self.active = Some(self.wait(run, active)),
            Some(active) => {
                self.end(run, &active);
                self.begins_at = now() + 200_000 + run.random.below(800_000);
            }
            None if now() >= self.begins_at && (goes_on || !self.is_over()) => self.begin(run),
            None => {}
        }
    }

    fn begin(&mut self, run: &mut Run) {
        if self.next.is_empty() {
            self.next = self.kinds.clone();
            if run.ended > QUICKLY_LOADED {
                self.next.retain(|kind| *kind != Kind::KillServer);
            }
            run.random.shuffle(&mut self.next);
        }
        let kind = self.next.pop().unwrap();
        let index = run.random.below(NODES as u64) as usize;
        let (process, from) = (run.nodes[index].process, now());
        let some_time = run.random.below(1_500_000);
        let mut lasts = 200_000 + some_time;
        match kind {
            Kind::Stop => {
                run.nodes[index].stop();
                lasts = longer_than_the_bound(some_time / 2);
            }
            Kind::QuietStop => {
                run.held = Some((index, Vec::new()));
                self.is_flushing = false;
                lasts = UNTIL_NOTICED;
            }
            Kind::Kill => {
                run.nodes[index].kill();
                lasts = UNTIL_NOTICED;
            }
            Kind::Cut => run.store.proxy(index).cut(),
            Kind::Freeze => run.store.proxy(index).pause(),
            Kind::KillServer => run.store.kill(),
            Kind::FreezeServer => run.store.freeze(),
        }
        self.active = Some(Active { kind, index, process, from, until: from + lasts });
    }

    /// Waits for a killed node to be replaced. A quiet stop has two steps: the node writes what it has to write, and then it
    /// is stopped.
    fn wait(&mut self, run: &mut Run, mut active: Active) -> Active {
        let node = &run.nodes[active.index];
        match active.kind {
            Kind::Kill if node.process != active.process && node.is_ready => active.until = now(),
            Kind::QuietStop if node.is_stopped => {
                let lasts = longer_than_the_bound(run.random.below(700_000));
                active = Active { kind: Kind::Stop, from: now(), until: now() + lasts, ..active };
            }
            Kind::QuietStop if !self.is_flushing && run.is_quiet(active.index) => {
                run.nodes[active.index].request(Request::Flush);
                self.is_flushing = true;
            }
            _ => {}
        }
        active
    }

    fn end(&mut self, run: &mut Run, active: &Active) {
        let Active { kind, index, process, from, .. } = *active;
        match kind {
            Kind::Stop | Kind::QuietStop => run.nodes[index].resume(),
            Kind::Kill => {}
            Kind::Cut => run.store.proxy(index).heal(),
            Kind::Freeze => run.store.proxy(index).resume(),
            Kind::KillServer => run.store.restart(),
            Kind::FreezeServer => run.store.thaw(),
        }
        self.faults += 1;
        let is_of_one = !matches!(kind, Kind::KillServer | Kind::FreezeServer) && !self.is_on_file;
        let (name, process) = (format!("{kind:?}"), is_of_one.then_some(process));
        run.recorder.write(&Record::Fault(Fault { name, process, from, until: now() }));
    }
}

fn longer_than_the_bound(by: u64) -> u64 {
    BOUND.as_micros() as u64 + 100_000 + by
}

/// With more keys, a busy machine may take longer than a test waits for a server to restart.
const QUICKLY_LOADED: usize = 20_000;
const UNTIL_NOTICED: u64 = u64::MAX / 2;
