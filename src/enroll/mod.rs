//! Issues a first API key to a user who proves ownership of an e-mail address with a one-time code.
//!
//! [`request_code`](Enrollment::request_code) sends a six-digit code to an address;
//! [`redeem_code`](Enrollment::redeem_code) checks the code and issues a key. The host implements
//! [`AccountLookup`], which maps addresses to accounts, and [`CodeSender`], which sends a [`CodeMessage`].
//! `http::manage::SignIn` provides the same over HTTP.
//!
//! # Security of six-digit codes
//! There are only a million codes, so guessing is limited in several ways:
//! - A code issues one key, expires after 10 minutes, and allows 5 attempts. Every store counts the attempt
//!   and compares the code in one atomic step. Requested codes are limited per address and hour; requested
//!   codes and attempts are limited per network and hour.
//! - Codes are stored as digests keyed by a [`Pepper`] that is kept outside the database, and bound to their
//!   address. Without the pepper, a stolen database does not reveal them; a plain hash of six digits, salted
//!   or not, could be reversed in less than a second. Addresses are stored as keyed digests, too.
//! - The account is looked up and the message is sent in the background. Neither the response nor its
//!   timing reveals whether an address has an account. For an address without an account, a code is stored
//!   but never sent.
//!
//! A remaining limitation: requesting codes for another person's address uses up that address's codes for
//! the hour.

mod enrollment;
mod host;
mod limits;

#[cfg(feature = "totp")]
pub(crate) use enrollment::parse_code;
pub use enrollment::{EnrollError, Enrollment, EnrollmentBuilder};
pub use host::{AccountLookup, CodeMessage, CodeSender, EmailAddress, HostError};

#[cfg(doc)]
use crate::secret::Pepper;
