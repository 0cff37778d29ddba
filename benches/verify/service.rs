//! A service with keys, of which each has an owner of its own, and what is asked of it.

use std::{
    hint::black_box,
    pin::pin,
    task::{Context, Poll, Waker},
};

use keyward::{
    Access, Actor, ApiKeys, Expiry, KeyFormat, MemoryStore, NewKey, Owner, VerifyRequest,
    api::ApiKeysBuilder,
    manage::Issued,
    model::{KeyLimits, Rate},
    verify::CacheOptions,
};
use sha2::Digest;
use tokio::runtime::{Handle, Runtime};

pub struct Service {
    pub keys: ApiKeys,
    pub owner: Owner,
    rate: Option<Rate>,
    issued: Vec<Issued>,
}

impl Service {
    /// With a rate that no benchmark exceeds.
    pub fn cached(runtime: &Runtime, count: usize) -> Self {
        let rate = Rate::per_second(10).burst(u32::MAX);
        // A cache that has to push keys out is another matter.
        let roomy = CacheOptions::default().max_keys(2 * count);
        Self::new(builder().cache(roomy).build(), Some(rate), runtime, count)
    }

    pub fn uncached(runtime: &Runtime, count: usize) -> Self {
        Self::new(builder().no_cache().build(), None, runtime, count)
    }

    fn new(keys: ApiKeys, rate: Option<Rate>, runtime: &Runtime, count: usize) -> Self {
        let owner = Owner::new("acme", "ada").unwrap();
        let mut service = Self { keys, owner, rate, issued: Vec::new() };
        for n in 0..count {
            // Each has an owner of its own, or counting the active ones makes it quadratic.
            service.owner = Owner::new("acme", &format!("ada-{n}")).unwrap();
            let issued = runtime.block_on(service.issue());
            service.issued.push(issued);
        }
        // The first uses are written, and the follower begins, before anything is measured.
        for _ in 0..2 {
            (0..count).for_each(|n| service.verify(n));
            runtime.block_on(service.keys.flush()).unwrap();
        }
        service
    }

    pub async fn issue(&self) -> Issued {
        let new = NewKey::new(&self.owner, "ci")
            .unwrap()
            .access(Access::only(["builds:read"]).unwrap())
            .expiry(Expiry::YEAR)
            .limits(KeyLimits { rate: self.rate, ..KeyLimits::default() });
        self.keys.issue(new, &Actor::system("bench")).await.unwrap()
    }

    /// All secrets, each with another character at its end.
    pub fn typos(&self) -> Vec<String> {
        let typo = |text: &str| {
            let last = if text.ends_with('A') { "B" } else { "A" };
            format!("{}{last}", &text[..text.len() - 1])
        };
        self.issued.iter().map(|issued| typo(issued.secret.expose())).collect()
    }

    fn secret(&self, n: usize) -> &str {
        self.issued[n].secret.expose()
    }

    /// What a verification cannot do without.
    pub fn bare(&self, n: usize) {
        black_box(sha2::Sha256::digest(self.secret(n)));
    }

    pub fn verify(&self, n: usize) {
        self.ask(self.secret(n), true);
    }

    /// Without a runtime's `block_on`, which would cost more than what is measured, unless there is
    /// something to wait for.
    pub fn ask(&self, text: &str, good: bool) {
        let request = VerifyRequest::new().require(&["builds:read"]);
        let verification = pin!(self.keys.verify(text, &request));
        // Looked at where it is: to move an answer costs something, too.
        match &verification.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answer) => assert_eq!(black_box(answer).is_ok(), good),
            Poll::Pending => self.wait(text, &request, good),
        }
    }

    #[cold]
    fn wait(&self, text: &str, request: &VerifyRequest<'_>, good: bool) {
        let answer = Handle::current().block_on(self.keys.verify(text, request));
        assert_eq!(answer.is_ok(), good);
    }
}

fn builder() -> ApiKeysBuilder {
    ApiKeys::builder(MemoryStore::new(), KeyFormat::builder("lc").build().unwrap())
}
