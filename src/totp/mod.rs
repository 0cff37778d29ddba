//! Codes of authenticator apps as a second factor: six digits that change every 30 seconds (TOTP, RFC 6238).
//!
//! The host generates a [`TotpSecret`] for an account and stores it. [`Totp::setup`] shows the secret to the
//! user, as a QR code and as text; the first code that [`Totp::check`] accepts proves that the app has it.
//! `check` returns the time of the confirmation, for [`Actor::second_factor_at`]. A
//! [`StepUp`](crate::accounts::StepUp) policy may require a recent one.
//!
//! # What the host must do
//! - Store [`TotpSecret::expose`] with the account, **encrypted** under a key that is kept elsewhere. The
//!   secret is needed to check codes, so it cannot be hashed.
//! - Treat a secret as active only after its first accepted code, and keep the previous one until then.
//! - Require a recent second factor before it replaces or removes a secret. Otherwise a stolen session is
//!   enough to set up another app.
//! - Provide a recovery method for users who lost their device.
//!
//! # Security of six-digit codes
//! - A code is accepted during its own 30 seconds and during the 30 seconds before and after, to tolerate
//!   clock drift. Three of a million codes are valid at a time.
//! - An account has [5](Totp::check) wrong codes per 15 minutes and 20 per day. They are counted in the store,
//!   exactly, for all nodes and any number of concurrent requests. An attacker who uses all of them every day
//!   has a chance of 6 in 100,000 per day, or 1 in 2 after 31 years. Correct codes are not counted.
//! - When the limit is reached, no code is checked until the 15 minutes or the day (UTC) ends. An attacker
//!   needs a session of the account to lock its owner out in this way, and it is visible in the audit log.
//! - A code is accepted once, on one node. Codes older than an accepted one are rejected.
//!
//! A remaining limitation: an attacker can use a code within seconds if the user enters it on a phishing page.
//! Passkeys do not have this weakness.

mod check;
mod secret;
mod setup;

pub use check::{Totp, TotpError};
pub use secret::TotpSecret;
pub use setup::TotpSetup;

#[cfg(doc)]
use crate::model::Actor;
