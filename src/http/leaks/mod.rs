//! Receives reports of GitHub's secret scanning: secrets found in public repositories, packages and
//! gists.
//!
//! For [partners](https://docs.github.com/code-security/secret-scanning/secret-scanning-partnership-program/secret-scanning-partner-program),
//! GitHub sends each match of a format ([`KeyFormat::scanner_rules`](crate::secret::KeyFormat::scanner_rules))
//! to an endpoint of the service, signed. [`LeakReceiver`] checks the signature, finds the keys,
//! applies the [`LeakPolicy`] of each key's format, and reports to GitHub which matches were secrets.
//!
//! A leak is written to the audit log as `key.leaked`, with the place where it was found, and is
//! thereby sent to every [`AuditSink`](crate::AuditSink), which can notify the owner. A repeated
//! report is processed once. While the store or GitHub's public keys cannot be read, the response is
//! 503, and GitHub sends the report again.

mod github;
mod receiver;

pub use github::{GITHUB_PUBLIC_KEYS, LeakReport, PublicKeys};
#[cfg(any(feature = "axum", feature = "actix"))]
pub(crate) use receiver::MAX_BODY;
pub use receiver::{LeakPolicy, LeakReceiver};
