//! A second factor from an authenticator app: codes of six digits that change every 30 seconds (TOTP,
//! RFC 6238).
//!
//! A [`TotpSecret`] is made for an account and stored by the host. [`Totp::setup`] shows it, as a QR
//! code and as text; the first code that [`Totp::check`] accepts proves that the app has it. Whatever
//! `check` accepts is a time for [`Actor::second_factor_at`], which a policy of
//! [`StepUp`](crate::accounts::StepUp) may demand.
//!
//! # What the host does
//! - It stores [`TotpSecret::expose`] with the account, **encrypted** under a key that lies elsewhere:
//!   who reads it makes codes. It cannot be hashed, for it is needed to check them.
//! - It calls a secret active only after the first code, and keeps the former one until then.
//! - It demands a fresh second factor before it replaces or removes one. Who has stolen a session would
//!   else set up his own.
//! - It has another way for people whose phone is gone.
//!
//! # What protects six digits
//! - A code is accepted in its own 30 seconds and in those before and after, since clocks differ: three
//!   of a million codes are right at a time.
//! - There are [5](Totp::check) wrong codes in a quarter of an hour and 20 in a day for one account,
//!   counted in the store, for all nodes together and however many come at the same moment. Who tries
//!   all of them, every day, has 6 chances in 100,000 each day: one in two after 31 years. Right codes
//!   take none of them.
//! - After that no code is looked at, until the quarter or the day (of UTC) is over: nobody is locked
//!   out for longer. Using up the tries of others takes their session, and can be seen in the log.
//! - A code is accepted once, and none that is older than an accepted one, on whichever node.
//!
//! What is left: a code that is typed into a page of someone else works for him, if he is quick.
//! Passkeys do not have this weakness.

mod check;
mod error;
mod limits;
mod secret;
mod setup;

pub use check::Totp;
pub use error::TotpError;
pub use secret::TotpSecret;
pub use setup::TotpSetup;

#[cfg(doc)]
use crate::model::Actor;
