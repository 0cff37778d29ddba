//! Codes of authenticator apps, on every store.

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

/// A service whose account has an app.
struct Phone {
    service: Service,
    secret: TotpSecret,
    /// One for each node.
    nodes: Vec<Totp>,
}

impl Phone {
    fn new(handles: Handles) -> Self {
        let service = Service::new(handles);
        let nodes = service.nodes.iter().map(|keys| Totp::new(keys.clone(), "Lumio")).collect();
        // Always the same one: of two random codes, now and then one is the other.
        let secret = TotpSecret::from_base32("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ").unwrap();
        Self { service, secret, nodes }
    }

    /// What the app shows now, or in so many steps.
    fn code(&self, steps: i64) -> String {
        code(&self.secret, self.service.now(), steps)
    }

    /// A code that is not right, and will not be soon; another one for each `n`.
    fn wrong(&self, n: u32) -> String {
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

    /// Types a wrong code so many times, each of which is looked at.
    async fn err(&self, times: u32) {
        for n in 0..times {
            let refused = self.check_at(n as usize, &self.wrong(n)).await;
            assert!(matches!(refused, Err(TotpError::WrongCode)), "{n}: {refused:?}");
        }
    }
}

/// As an app calculates it: with the crate on which the library stands. That this is right, `oracle`
/// and the vectors of RFC 6238 say.
pub fn code(secret: &TotpSecret, at: Timestamp, steps: i64) -> String {
    let secret = totp_rs::Secret::try_from_base32(secret.expose()).unwrap();
    let codes = totp_rs::Builder::new().with_secret(secret).build().unwrap();
    let time = at.as_unix_micros() / 1_000_000 + 30 * steps;
    codes.generate(time as u64).to_string()
}

fn bob() -> (Owner, Actor) {
    (crate::support::owner("acme", "bob"), Actor::account("bob"))
}
