use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use keyward::{
    Actor, Owner,
    accounts::{SensitiveChange, StepUp, StepUpError},
};

/// A step-up policy that the test sets, and that records its calls. It requires nothing at first.
#[derive(Clone, Default)]
pub struct Policy(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    max_age: Option<Duration>,
    down: bool,
    asked: Vec<(Owner, String, SensitiveChange)>,
}

impl Policy {
    pub fn demand(&self, max_age: Option<Duration>) {
        self.0.lock().unwrap().max_age = max_age;
    }

    pub fn fail(&self, down: bool) {
        self.0.lock().unwrap().down = down;
    }

    /// Returns the calls since the last time: owner, actor and change.
    pub fn asked(&self) -> Vec<(Owner, String, SensitiveChange)> {
        std::mem::take(&mut self.0.lock().unwrap().asked)
    }
}

#[async_trait::async_trait]
impl StepUp for Policy {
    async fn max_age(
        &self,
        owner: &Owner,
        by: &Actor,
        change: SensitiveChange,
    ) -> Result<Option<Duration>, StepUpError> {
        let mut state = self.0.lock().unwrap();
        state.asked.push((owner.clone(), by.label().into(), change));
        if state.down { Err("the policy's database is down".into()) } else { Ok(state.max_age) }
    }
}
