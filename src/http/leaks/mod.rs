//! Receives what GitHub's secret scanning finds: secrets in public repositories, packages, gists.
//!
//! For [partners](https://docs.github.com/code-security/secret-scanning/secret-scanning-partnership-program/secret-scanning-partner-program),
//! GitHub sends each match of a format ([`KeyFormat::scanner_rules`](crate::secret::KeyFormat::scanner_rules))
//! to an endpoint of the service, signed. [`LeakReceiver`] checks the signature, finds the keys, does with
//! each what the [`LeakPolicy`] of its format says, and answers which of the matches were secrets.
//!
//! A leak is noted in the audit log as `key.leaked`, with where it was found, and so reaches every
//! [`AuditSink`](crate::AuditSink): that is how the owner is told. A report that comes twice is
//! done once. While the store or GitHub's keys cannot be asked the answer is 503, and GitHub comes
//! again.

mod policy;
mod public_keys;
mod receive;
mod report;

use std::sync::Arc;

pub use policy::LeakPolicy;
pub use public_keys::PublicKeys;
pub use report::LeakReport;

use self::{policy::Policies, public_keys::Known};
use crate::{api::ApiKeys, secret::KeyFormat};

/// The receiver of reports about leaked keys of one [`ApiKeys`]. Cheap to clone.
///
/// # Examples
/// ```
/// # use keyward::testing::TestKeys;
/// use keyward::http::leaks::{GITHUB_PUBLIC_KEYS, LeakReceiver, LeakPolicy, LeakReport};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// # let keys = TestKeys::new().keys;
/// // By the HTTP client that the service has anyway, here `reqwest`.
/// let fetch = || async {
///     let answer = reqwest::get(GITHUB_PUBLIC_KEYS).await?.error_for_status()?;
///     Ok(answer.bytes().await?.into())
/// };
/// let leaks = LeakReceiver::github(keys, fetch).policy(LeakPolicy::Disable);
/// # let fetch = || async { Ok(br#"{"public_keys": []}"#.to_vec()) };
/// # let leaks = LeakReceiver::github(TestKeys::new().keys, fetch);
///
/// let forged = LeakReport::new(b"[]").identifier(b"90a42116").signature(b"MEUCIQ==");
/// assert_eq!(leaks.receive(&forged).await.status(), 403);
/// # }
/// ```
#[derive(Clone)]
#[must_use = "it does nothing until it is mounted"]
pub struct LeakReceiver {
    keys: ApiKeys,
    policies: Policies,
    known: Arc<Known>,
}

/// Where GitHub publishes the keys that it signs reports with.
pub const GITHUB_PUBLIC_KEYS: &str = "https://api.github.com/meta/public_keys/secret_scanning";

impl LeakReceiver {
    /// Revokes keys that GitHub has found. `public_keys` fetches [`GITHUB_PUBLIC_KEYS`].
    pub fn github(keys: ApiKeys, public_keys: impl PublicKeys) -> Self {
        Self { keys, policies: Policies::default(), known: Arc::new(Known::by(public_keys)) }
    }

    /// What to do with leaked keys, whatever their format.
    pub fn policy(mut self, policy: LeakPolicy) -> Self {
        self.policies.general = policy;
        self
    }

    /// What to do with leaked keys of one format: those of a test environment, say.
    pub fn policy_for_format(mut self, format: &KeyFormat, policy: LeakPolicy) -> Self {
        self.policies.special.insert(0, (format.clone(), policy));
        self
    }
}

impl std::fmt::Debug for LeakReceiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeakReceiver").field("policies", &self.policies).finish_non_exhaustive()
    }
}

/// The largest report that an adapter reads: some ten thousand matches.
#[cfg(any(feature = "axum", feature = "actix"))]
pub(crate) const MAX_BODY: usize = 4 * 1024 * 1024;
