//! The load of a cluster: keys are issued on some nodes, verified on all of them, and ended on others.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    path::PathBuf,
    time::{Duration, Instant},
};

use keyward::{
    ApiKeys, AuditQuery, OwnerScope, Status,
    manage::Page,
    system::{Clock, SystemClock},
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{
    history::{ChangeKind, Outcome, Record, Recorder, StoredKey, now},
    nemesis::Nemesis,
    node::{
        BOUND, Event, NodeHandle, Order, Presented, RENAMED, Reply, Request, Setup, Suspensions,
        TENANT,
    },
    stores::Store,
};
use crate::support::{
    format,
    random::Random,
    servers::{Scratch, User},
};

pub struct Run {
    pub store: Store,
    pub nodes: Vec<NodeHandle>,
    pub random: Random,
    pub recorder: Recorder,
    /// The node that gets no requests until it is stopped, and those that it did not get.
    pub held: Option<(usize, Vec<Request>)>,
    history: PathBuf,
    scratch: Scratch,
    events: (UnboundedSender<Event>, UnboundedReceiver<Event>),
    processes: u32,
    changes: u64,
    /// How many secrets are to end, and how long to wait for it.
    target: usize,
    longest: Duration,
    pub ended: usize,
    keys: Vec<Key>,
    /// By owner: keys that are ended together.
    groups: HashMap<String, Group>,
    /// By node: the number of changes that it may have under way.
    windows: [usize; NODES],
    /// What to change next.
    ready: VecDeque<Target>,
    later: BTreeMap<(u64, usize), Later>,
    /// The secrets that are presented on each node until it has denied them.
    watched: HashMap<(u32, u32), Watched>,
    /// Those of them that have ended.
    undenied: BTreeSet<(u32, u32)>,
}

struct Key {
    owner: String,
    id: Option<String>,
    secrets: Vec<Presented>,
    next_generation: u32,
    /// What happens to it, in this order.
    script: VecDeque<ChangeKind>,
    /// On how many nodes the last step is made concurrently.
    copies: usize,
    in_flight: usize,
    is_done: bool,
    /// Presented once, and again only after it has ended.
    is_idle: bool,
}

struct Group {
    keys: Vec<u32>,
    unanswered: usize,
    end: ChangeKind,
}

enum Target {
    Key(u32),
    Group(String),
}

enum Later {
    Expired(u32),
    Watch(Presented),
}

struct Watched {
    presented: Presented,
    denied_by: [bool; NODES],
}

impl Run {
    pub async fn new(
        store: Store,
        history: PathBuf,
        seed: u64,
        target: usize,
        longest: Duration,
    ) -> Self {
        let scratch = Scratch::new(User::current());
        std::fs::create_dir(scratch.path().join(SUSPENDED)).unwrap();
        let mut run = Self {
            store,
            nodes: Vec::new(),
            random: Random(seed),
            recorder: Recorder::new(&history, 0),
            held: None,
            history,
            scratch,
            events: unbounded_channel(),
            processes: 0,
            changes: 0,
            target,
            longest,
            ended: 0,
            keys: Vec::new(),
            groups: HashMap::new(),
            windows: [CHANGES_PER_NODE; NODES],
            ready: VecDeque::new(),
            later: BTreeMap::new(),
            watched: HashMap::new(),
            undenied: BTreeSet::new(),
        };
        for index in 0..NODES {
            let mut node = run.start_node(index).await;
            node.is_ready = true;
            run.nodes.push(node);
        }
        run
    }

    /// Issues, verifies and ends keys until enough have ended, at first without faults. Fails if nothing happens any more.
    pub async fn end_keys(&mut self) -> Result<(), String> {
        let mut nemesis = Nemesis::new(&self.store);
        let mut tick = tokio::time::interval(Duration::from_millis(10));
        let (begun, mut last_event) = (Instant::now(), Instant::now());
        loop {
            let goes_on = self.ended < self.target && begun.elapsed() < self.longest;
            tokio::select! {
                Some(event) = self.events.1.recv() => {
                    last_event = Instant::now();
                    self.handle(event).await;
                }
                _ = tick.tick() => {
                    if self.ended >= self.target / 4 || begun.elapsed() >= self.longest / 4 {
                        nemesis.act(self, goes_on);
                    }
                    self.act_later();
                }
            }
            let is_over = !goes_on && nemesis.is_over();
            for index in (0..NODES).filter(|_| !is_over) {
                self.fill(index);
            }
            let unanswered: usize = self.nodes.iter().map(|node| node.unanswered.len()).sum();
            if is_over && unanswered == 0 && self.later.is_empty() && self.undenied.is_empty() {
                return Ok(());
            }
            if last_event.elapsed() > DEADLINE {
                let Self { ended, undenied, .. } = self;
                return Err(format!(
                    "{ended} have ended; {unanswered} changes under way; not denied: {undenied:?}"
                ));
            }
        }
    }

    /// Ends the nodes, and records what the store has.
    pub async fn finish(mut self) {
        for node in &self.nodes {
            node.request(Request::Shutdown);
        }
        for _ in 0..NODES {
            self.wait_for(|reply| matches!(reply, Reply::ShutDown)).await;
        }
        self.nodes.clear();
        self.present_all().await;
        self.read_store().await;
    }

    async fn start_node(&mut self, index: usize) -> NodeHandle {
        self.processes += 1;
        let setup = Setup {
            process: self.processes,
            address: self.store.address_of(index),
            history: self.history.clone(),
            suspended: self.scratch.path().join(SUSPENDED),
            // One node has a small cache, so that look-ups are always under way.
            cached_keys: if index == NODES - 1 { LIVE / 2 } else { 100_000 },
        };
        let node = NodeHandle::start(&self.scratch, index, &setup, self.events.0.clone());
        if self.nodes.len() < NODES {
            self.wait_for(|reply| matches!(reply, Reply::Ready)).await;
        }
        node
    }

    async fn wait_for(&mut self, is_it: impl Fn(&Reply) -> bool) {
        loop {
            let event = tokio::time::timeout(DEADLINE, self.events.1.recv()).await;
            let (_, process, reply) = event.expect("a reply in time").unwrap();
            match reply {
                Some(reply) if is_it(&reply) => return,
                Some(_) => {}
                None => assert!(process < self.processes, "process {process} has ended"),
            }
        }
    }

    // ---- Changes ----

    /// Adapts the number of concurrent changes of a node, so that a slow machine makes progress: an overloaded store does
    /// work for calls that have timed out.
    fn adapt(&mut self, index: usize, outcome: &Outcome) {
        let window = &mut self.windows[index];
        *window = match outcome {
            Outcome::Unavailable | Outcome::Unknown => (*window * 7 / 8).max(MIN_CHANGES),
            Outcome::Done | Outcome::Refused(_) => (*window + 1).min(CHANGES_PER_NODE),
        };
    }

    /// Requests changes of a node until it has as many under way as it should.
    fn fill(&mut self, index: usize) {
        let is_held = self.held.as_ref().is_some_and(|(held, _)| *held == index);
        while !is_held && self.nodes[index].unanswered.len() < self.windows[index] {
            if self.ready.len() <= LIVE {
                self.issue(index);
                continue;
            }
            match self.ready.pop_front() {
                Some(Target::Key(key)) => self.change_key(index, key),
                Some(Target::Group(owner)) => {
                    let end = self.groups[&owner].end;
                    self.order(index, end, owner, None);
                }
                None => return,
            }
        }
    }

    /// Issues a key, or a group of keys, whose life is random.
    fn issue(&mut self, index: usize) {
        let number = self.keys.len();
        let random = &mut self.random;
        let mut owner = format!("plain-{}", number / 8);
        let (mut lifetime, mut quota, mut copies) = (None, None, 1);
        let mut script = VecDeque::new();
        if random.below(8) == 0 {
            script.push_back(ChangeKind::Rename);
        }
        let ends = [ChangeKind::Revoke, ChangeKind::Disable, ChangeKind::Delete];
        let end = ends[random.below(3) as usize];
        let mut is_idle = random.below(4) == 0;
        match random.below(100) {
            0..45 => script.push_back(end),
            45..60 => script.extend([ChangeKind::Rotate { generation: 0 }, end]),
            60..70 => {
                script.push_back(end);
                copies = 2;
            }
            70..75 => lifetime = Some(500_000 + random.below(2_000_000)),
            75..80 => {
                quota = Some(20);
                // Deleting a key deletes its counter, and other nodes may start another one within the bound.
                let is_deletion = end == ChangeKind::Delete;
                script.push_back(if is_deletion { ChangeKind::Revoke } else { end });
            }
            80..83 => {
                owner = format!("shared-{}", number / 64);
                script.push_back(end);
            }
            83..93 => {
                owner = format!("limited-{}", random.below(20));
                script.push_back(ChangeKind::Revoke);
            }
            93..97 => {
                owner = format!("group-{number}");
                let end =
                    if random.below(2) == 0 { ChangeKind::RevokeAll } else { ChangeKind::Suspend };
                let group = Group { keys: Vec::new(), unanswered: GROUP, end };
                self.groups.insert(owner.clone(), group);
                script.clear();
            }
            // It is not ended.
            _ => is_idle = true,
        }
        let issues = if self.groups.contains_key(&owner) { GROUP } else { 1 };
        for key in number..number + issues {
            self.keys.push(Key {
                owner: owner.clone(),
                id: None,
                secrets: Vec::new(),
                next_generation: 1,
                script: script.clone(),
                copies,
                in_flight: 0,
                is_done: false,
                is_idle,
            });
            let kind = ChangeKind::Issue { lifetime, quota };
            self.order(index, kind, owner.clone(), Some(key as u32));
        }
    }

    /// Requests the next change of a key; if it ends the key, perhaps on two nodes concurrently.
    fn change_key(&mut self, index: usize, key: u32) {
        let state = &mut self.keys[key as usize];
        let mut kind = state.script[0];
        if let ChangeKind::Rotate { generation } = &mut kind {
            *generation = state.next_generation;
            state.next_generation += 1;
        }
        let copies = if state.script.len() == 1 { state.copies } else { 1 };
        let owner = state.owner.clone();
        for copy in 0..copies {
            self.order((index + copy) % NODES, kind, owner.clone(), Some(key));
        }
    }

    fn order(&mut self, index: usize, kind: ChangeKind, owner: String, key: Option<u32>) {
        let number = self.changes;
        self.changes += 1;
        let id = key.and_then(|key| {
            let state = &mut self.keys[key as usize];
            state.in_flight += 1;
            state.id.clone()
        });
        let order = Order { number, kind, owner, key, id };
        self.nodes[index].unanswered.insert(number, order.clone());
        self.request(index, Request::Change(order));
    }

    /// Whether a node has answered all changes that it was requested to make.
    pub fn is_quiet(&self, index: usize) -> bool {
        let held = self.held.iter().flat_map(|(_, requests)| requests);
        let held = held.filter(|request| matches!(request, Request::Change(_))).count();
        self.nodes[index].unanswered.len() == held
    }

    fn request(&mut self, index: usize, request: Request) {
        match &mut self.held {
            Some((held, requests)) if *held == index => requests.push(request),
            _ => self.nodes[index].request(request),
        }
    }

    // ---- Answers ----

    async fn handle(&mut self, (index, process, reply): Event) {
        if self.nodes[index].process != process {
            return;
        }
        match reply {
            Some(Reply::Changed(number, outcome, issued)) => {
                let order = self.nodes[index].unanswered.remove(&number).unwrap();
                self.adapt(index, &outcome);
                self.changed(order, &outcome, issued);
            }
            Some(Reply::Denied(key, generation)) => self.denied(index, (key, generation)),
            Some(Reply::Flushed) => {
                let (held, requests) = self.held.take().unwrap();
                assert_eq!(held, index);
                self.nodes[index].stop();
                requests.into_iter().for_each(|request| self.nodes[index].request(request));
            }
            Some(Reply::Ready) => self.nodes[index].is_ready = true,
            Some(Reply::Used | Reply::ShutDown) => {}
            None => {
                assert!(self.nodes[index].is_killed, "process {process} has ended");
                let node = self.start_node(index).await;
                let killed = std::mem::replace(&mut self.nodes[index], node);
                for order in killed.unanswered.values().cloned() {
                    self.changed(order, &Outcome::Unknown, None);
                }
                for watched in self.watched.values().filter(|watched| !watched.denied_by[index]) {
                    self.nodes[index].request(Request::Watch(watched.presented.clone()));
                }
            }
        }
    }

    fn changed(&mut self, order: Order, outcome: &Outcome, issued: Option<(String, String)>) {
        let Some(key) = order.key else {
            match outcome {
                Outcome::Done => {
                    let keys = std::mem::take(&mut self.groups.get_mut(&order.owner).unwrap().keys);
                    keys.into_iter().for_each(|key| self.has_ended(key));
                }
                _ => self.ready.push_back(Target::Group(order.owner)),
            }
            return;
        };
        let state = &mut self.keys[key as usize];
        state.in_flight -= 1;
        match order.kind {
            ChangeKind::Issue { lifetime, quota } => {
                self.issued(key, issued, quota.is_some());
                if let Some(lifetime) = lifetime.filter(|_| *outcome == Outcome::Done) {
                    self.later(lifetime, Later::Expired(key));
                }
                if let Some(group) = self.groups.get_mut(&order.owner) {
                    group.unanswered -= 1;
                    group.keys.extend((*outcome == Outcome::Done).then_some(key));
                    if group.unanswered == 0 && !group.keys.is_empty() {
                        self.ready.push_back(Target::Group(order.owner));
                    }
                    return;
                }
                if *outcome != Outcome::Done || lifetime.is_some() {
                    return;
                }
            }
            ChangeKind::Rename => _ = state.script.pop_front(),
            ChangeKind::Rotate { .. } if *outcome == Outcome::Done => {
                state.script.pop_front();
                self.has_ended(key);
                self.issued(key, issued, false);
            }
            // Another call, or one with an unknown outcome, may have ended it.
            _ => {
                let has_ended = matches!(outcome, Outcome::Refused(reason) if reason != "Conflict");
                state.is_done |= *outcome == Outcome::Done || has_ended;
                if state.in_flight > 0 {
                    return;
                }
                if state.is_done {
                    state.script.clear();
                    self.has_ended(key);
                }
            }
        }
        if !self.keys[key as usize].script.is_empty() {
            self.ready.push_back(Target::Key(key));
        }
    }

    /// A key has a secret: all nodes verify it.
    fn issued(&mut self, key: u32, issued: Option<(String, String)>, has_quota: bool) {
        let Some((id, secret)) = issued else { return };
        let state = &mut self.keys[key as usize];
        let generation = state.next_generation - 1;
        let presented = Presented { key, generation, secret };
        state.id = Some(id);
        state.secrets.push(presented.clone());
        if !state.is_idle {
            self.watch(presented.clone());
        }
        if has_quota || self.keys[key as usize].is_idle {
            let times = if has_quota { 8 } else { 1 };
            for index in 0..NODES {
                self.request(index, Request::Use(presented.clone(), times));
            }
        }
    }

    fn watch(&mut self, presented: Presented) {
        for index in 0..NODES {
            self.request(index, Request::Watch(presented.clone()));
        }
        let secret = (presented.key, presented.generation);
        self.watched.insert(secret, Watched { presented, denied_by: [false; NODES] });
    }

    /// The current secret of a key has ended: each node has to deny it.
    fn has_ended(&mut self, key: u32) {
        self.ended += 1;
        let state = &self.keys[key as usize];
        let presented = state.secrets.last().unwrap().clone();
        if state.is_idle {
            let delay = self.random.below(2 * BOUND.as_micros() as u64);
            self.later(delay, Later::Watch(presented));
            return;
        }
        let secret = (key, presented.generation);
        if self.watched.contains_key(&secret) {
            self.undenied.insert(secret);
        }
    }

    fn denied(&mut self, index: usize, secret: (u32, u32)) {
        let Some(watched) = self.watched.get_mut(&secret) else { return };
        watched.denied_by[index] = true;
        if watched.denied_by == [true; NODES] {
            self.watched.remove(&secret);
            self.undenied.remove(&secret);
        }
    }

    fn later(&mut self, delay: u64, what: Later) {
        self.later.insert((now() + delay, self.later.len()), what);
    }

    fn act_later(&mut self) {
        while let Some(first) = self.later.first_entry()
            && first.key().0 <= now()
        {
            match first.remove() {
                Later::Expired(key) => self.has_ended(key),
                Later::Watch(presented) => {
                    let secret = (presented.key, presented.generation);
                    self.watch(presented);
                    self.undenied.insert(secret);
                }
            }
        }
    }

    // ---- After the run ----

    /// Presents each secret once, to a new process.
    async fn present_all(&mut self) {
        let node = self.start_node(0).await;
        let secrets: Vec<_> = self.keys.iter().flat_map(|key| key.secrets.clone()).collect();
        for (sent, presented) in secrets.iter().enumerate() {
            if sent >= CHANGES_PER_NODE {
                self.wait_for(|reply| matches!(reply, Reply::Used)).await;
            }
            node.request(Request::Use(presented.clone(), 1));
        }
        for _ in 0..CHANGES_PER_NODE.min(secrets.len()) {
            self.wait_for(|reply| matches!(reply, Reply::Used)).await;
        }
    }

    async fn read_store(&mut self) {
        let store = self.store.address().open().await;
        let accounts = Suspensions(self.scratch.path().join(SUSPENDED));
        let keys = ApiKeys::builder_on(store, format()).accounts(accounts).no_cache().build();
        let (mut by_id, mut page) = (HashMap::new(), Page::first().limit(1_000));
        loop {
            let listed = keys.list(OwnerScope::Tenant(TENANT), page).await.unwrap();
            assert!(listed.damaged.is_empty(), "{:?}", listed.damaged);
            for stored in listed.keys {
                let (number, renamed) =
                    stored.name.as_str().split_once(' ').unwrap_or((stored.name.as_str(), ""));
                let number = number.strip_prefix("key-").and_then(|number| number.parse().ok());
                let Some(key) = number else { panic!("{stored:?}") };
                by_id.insert(stored.id.to_string(), key);
                self.recorder.write(&Record::Stored(StoredKey {
                    key,
                    owner: stored.owner.account().into(),
                    revoked: stored.status(SystemClock.now()) == Status::Revoked,
                    disabled: stored.disabled_at.is_some(),
                    renamed: renamed == RENAMED,
                    revision: stored.revision,
                }));
            }
            let Some(next) = listed.next else { break };
            page = page.after(next);
        }
        // Keys that were deleted.
        for (key, state) in (0..).zip(&self.keys) {
            by_id.extend(state.id.clone().map(|id| (id, key)));
        }
        let mut counts: HashMap<u32, BTreeMap<String, u32>> = HashMap::new();
        let mut query = AuditQuery::new(OwnerScope::Tenant(TENANT)).limit(1_000);
        loop {
            let events = keys.events(query).await.unwrap();
            let Some(last) = events.last().map(|event| event.id) else { break };
            for event in events {
                let Some(id) = event.key_id else { continue };
                match by_id.get(&id.to_string()) {
                    Some(key) => {
                        let kinds = counts.entry(*key).or_default();
                        *kinds.entry(event.kind.to_string()).or_default() += 1;
                    }
                    None => self.recorder.write(&Record::Stranger(event.to_string())),
                }
            }
            query = AuditQuery::new(OwnerScope::Tenant(TENANT)).limit(1_000).after(last);
        }
        for (key, events) in counts {
            self.recorder.write(&Record::Events(key, events));
        }
    }
}

pub const NODES: usize = 4;
/// The maximum number of concurrent changes of a node: 256 on all of them.
const CHANGES_PER_NODE: usize = 64;
const MIN_CHANGES: usize = 8;
/// The number of keys that are verified before they end.
const LIVE: usize = 128;
const GROUP: usize = 4;
const SUSPENDED: &str = "suspended";
const DEADLINE: Duration = Duration::from_secs(60);
