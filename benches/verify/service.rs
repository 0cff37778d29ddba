//! A service with one key per owner.

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
    /// Creates a service with a cache. Its keys have a rate that no benchmark exceeds.
    pub fn cached(runtime: &Runtime, count: usize) -> Self {
        let rate = Rate::per_second(10).burst(u32::MAX);
        // Evictions are not measured.
        let options = CacheOptions::default().max_keys(2 * count);
        Self::new(builder().cache(options).build(), Some(rate), runtime, count)
    }

    pub fn uncached(runtime: &Runtime, count: usize) -> Self {
        Self::new(builder().no_cache().build(), None, runtime, count)
    }

    fn new(keys: ApiKeys, rate: Option<Rate>, runtime: &Runtime, count: usize) -> Self {
        let owner = Owner::new("acme", "ada").unwrap();
        let mut service = Self { keys, owner, rate, issued: Vec::new() };
        for n in 0..count {
            // Counting the active keys of one owner would make this quadratic.
            service.owner = Owner::new("acme", &format!("ada-{n}")).unwrap();
            let issued = runtime.block_on(service.issue());
            service.issued.push(issued);
        }
        // Writes the first uses and starts the background tasks before the measurement.
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

    /// Returns all secrets with a wrong last character.
    pub fn typos(&self) -> Vec<String> {
        let typo = |text: &str| {
            let last = if text.ends_with('A') { "B" } else { "A" };
            format!("{}{last}", &text[..text.len() - 1])
        };
        self.issued.iter().map(|issued| typo(issued.secret.expose())).collect()
    }

    pub fn secrets(&self) -> impl Iterator<Item = &str> {
        self.issued.iter().map(|issued| issued.secret.expose())
    }

    pub fn secret(&self, n: usize) -> &str {
        self.issued[n].secret.expose()
    }

    /// Computes the bare digest of the `n`th secret.
    pub fn bare(&self, n: usize) {
        black_box(sha2::Sha256::digest(self.secret(n)));
    }

    pub fn verify(&self, n: usize) {
        self.check(self.secret(n), true);
    }

    /// Verifies a text. Polls once without `block_on`, which would cost more than the verification,
    /// and blocks only if the future is pending.
    pub fn check(&self, text: &str, good: bool) {
        let request = VerifyRequest::new().require(&["builds:read"]);
        let verification = pin!(self.keys.verify(text, &request));
        // Matched by reference: moving the result would be measured too.
        match &verification.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => assert_eq!(black_box(result).is_ok(), good),
            Poll::Pending => self.block(text, &request, good),
        }
    }

    #[cold]
    fn block(&self, text: &str, request: &VerifyRequest<'_>, good: bool) {
        let result = Handle::current().block_on(self.keys.verify(text, request));
        assert_eq!(result.is_ok(), good);
    }
}

fn builder() -> ApiKeysBuilder {
    ApiKeys::builder(MemoryStore::new(), KeyFormat::builder("lc").build().unwrap())
}
