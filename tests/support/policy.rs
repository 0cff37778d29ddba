use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use keyward::{
    Actor, Owner,
    accounts::{SensitiveChange, StepUp, StepUpError},
};

/// A policy that the test sets, and that remembers what it was asked; it demands nothing at first.
#[derive(Clone, Default)]
pub struct Policy(Arc<Mutex<Book>>);

#[derive(Default)]
struct Book {
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

    /// What it was asked since the last time: whose key, who, and which change.
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
        let mut book = self.0.lock().unwrap();
        book.asked.push((owner.clone(), by.label().into(), change));
        if book.down { Err("the policy's database is down".into()) } else { Ok(book.max_age) }
    }
}
