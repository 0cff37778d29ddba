//! Codes of authenticator apps (TOTP), on every store.

mod codes;
mod log;
mod oracle;
mod races;
mod setup;

use keyward::{
    Actor, Owner, Timestamp,
    totp::{Totp, TotpError, TotpSecret},
};

use crate::support::{Service, stores::Handles};

/// A service whose account has an authenticator app.
struct TotpHarness {
    service: Service,
    secret: TotpSecret,
    /// One for each node.
    nodes: Vec<Totp>,
}

impl TotpHarness {
    fn new(handles: Handles) -> Self {
        let service = Service::new(handles);
        let nodes = service.nodes.iter().map(|keys| Totp::new(keys.clone(), "Lumio")).collect();
        // A fixed secret: two codes of a random secret are sometimes equal.
        let secret = TotpSecret::from_base32("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ").unwrap();
        Self { service, secret, nodes }
    }

    /// Returns the code that the app shows this many steps from now.
    fn code(&self, steps: i64) -> String {
        code(&self.secret, self.service.now(), steps)
    }

    /// Returns a code that is wrong now and for the next half hour; a different one for each `n`.
    fn wrong_code(&self, n: u32) -> String {
        let near: Vec<_> = (-3..=60).map(|step| self.code(step)).collect();
        let all = (0..1_000_000_u32).map(|code| format!("{code:06}"));
        all.filter(|code| !near.contains(code)).nth(n as usize).unwrap()
    }

    async fn check(&self, code: &str) -> Result<Timestamp, TotpError> {
        self.check_at(0, code).await
    }

    async fn check_at(&self, node: usize, code: &str) -> Result<Timestamp, TotpError> {
        let Self { service, secret, nodes } = self;
        let node = &nodes[node % nodes.len()];
        node.check(&service.owner, secret, code, &service.actor).await
    }

    /// Enters this many wrong codes, and asserts that each is checked.
    async fn enter_wrong_codes(&self, times: u32) {
        for n in 0..times {
            let result = self.check_at(n as usize, &self.wrong_code(n)).await;
            assert!(matches!(result, Err(TotpError::WrongCode)), "{n}: {result:?}");
        }
    }
}

/// Calculates a code with the same crate as the library. The module `oracle` and the test vectors of RFC
/// 6238 check that crate.
pub fn code(secret: &TotpSecret, at: Timestamp, steps: i64) -> String {
    let secret = totp_rs::Secret::try_from_base32(secret.expose()).unwrap();
    let codes = totp_rs::Builder::new().with_secret(secret).build().unwrap();
    let time = at.as_unix_micros() / 1_000_000 + 30 * steps;
    codes.generate(time as u64).to_string()
}

fn bob() -> (Owner, Actor) {
    (crate::support::owner("acme", "bob"), Actor::account("bob"))
}
