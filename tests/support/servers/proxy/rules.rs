//! The faults that a test requests of a proxy, and whether they have happened.

use std::{mem, time::Duration};

use tokio::{sync::watch, time::timeout};

use super::super::DEADLINE;

/// The direction of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    ToServer,
    ToClient,
}

/// A fault of one request or its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    CutRequest,
    SwallowReply,
    HoldReply,
}

/// The state of a proxy. Tasks wait for changes of it.
#[derive(Debug, Default)]
pub struct State {
    pub paused: bool,
    pub down: bool,
    pub cuts: u64,
    pub releases: u64,
    pub delay: Duration,
    /// The number of bytes that still pass in this direction before the connection is cut.
    pub budget: Option<(Direction, usize)>,
    armed: Option<(Vec<u8>, Fault)>,
    sprung: bool,
    connections: usize,
}

#[derive(Default)]
pub struct Rules {
    state: watch::Sender<State>,
}

impl Rules {
    pub fn change(&self, change: impl FnOnce(&mut State)) {
        self.state.send_modify(|state| {
            change(state);
            // `sprung` refers to the fault that was armed last.
            state.sprung &= state.armed.is_none() && state.budget.is_none();
        });
    }

    pub fn arm(&self, request: &str, fault: Fault) {
        self.change(|state| state.armed = Some((request.into(), fault)));
    }

    pub fn spring(&self) {
        self.state.send_modify(|state| state.sprung = true);
    }

    pub async fn sprung(&self) {
        let mut state = self.state.subscribe();
        let sprung = timeout(DEADLINE, state.wait_for(|state| state.sprung)).await;
        assert!(sprung.is_ok(), "the armed fault did not happen: {:?}", self.state.borrow());
    }

    /// Returns the armed fault if it applies to this request.
    pub fn fault_for(&self, request: &[u8]) -> Option<Fault> {
        let mut fault = None;
        self.state.send_modify(|state| {
            let hit = |(text, _): &mut (Vec<u8>, Fault)| contains(request, text);
            fault = state.armed.take_if(hit).map(|(_, fault)| fault);
        });
        fault
    }

    /// Returns the number of these bytes that may pass before the connection is cut, or `None` if all may pass
    /// and it is not cut.
    pub fn charge(&self, direction: Direction, bytes: usize) -> Option<usize> {
        let mut passes = None;
        self.state.send_modify(|state| {
            if let Some((_, left)) = state.budget.as_mut().filter(|(way, _)| *way == direction) {
                if bytes < *left {
                    *left -= bytes;
                } else {
                    passes = Some(mem::take(left));
                    state.budget = None;
                }
            }
        });
        passes
    }

    /// Waits while the proxy is paused, and then for the delay.
    pub async fn gate(&self) {
        let mut state = self.state.subscribe();
        let delay = state.wait_for(|state| !state.paused).await.map(|state| state.delay);
        if let Some(delay) = delay.ok().filter(|delay| !delay.is_zero()) {
            tokio::time::sleep(delay).await;
        }
    }

    /// Waits for the next `resume`.
    pub async fn released(&self) {
        let mut state = self.state.subscribe();
        let before = state.borrow().releases;
        self.spring();
        let _ = state.wait_for(|state| state.releases > before).await;
    }

    /// Waits for the next `cut`. Returns immediately while connections are cut.
    pub async fn cut(&self) {
        let mut state = self.state.subscribe();
        let before = state.borrow().cuts;
        let _ = state.wait_for(|state| state.down || state.cuts > before).await;
    }

    pub fn connected(&self) -> Connected<'_> {
        self.state.send_modify(|state| state.connections += 1);
        Connected(self)
    }

    pub fn connections(&self) -> usize {
        self.state.borrow().connections
    }
}

/// Counts a connection as open until dropped.
pub struct Connected<'a>(&'a Rules);

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        self.0.state.send_modify(|state| state.connections -= 1);
    }
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    text.is_empty() || bytes.windows(text.len()).any(|window| window == text)
}
