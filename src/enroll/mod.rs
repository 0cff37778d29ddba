//! A first key for a person who has none: by a code that is sent to her e-mail address.
//!
//! [`request_code`](Enrollment::request_code) has six digits sent; [`redeem_code`](Enrollment::redeem_code) takes them and
//! issues a key. The host says through [`AccountLookup`] whose account an address is, and sends the
//! [`CodeMessage`] through [`CodeSender`]. `http::manage::SignIn` is the same over HTTP.
//!
//! # What protects six digits
//! A million codes are few, so everything around them has to be tight:
//! - A code is good for one key, for 10 minutes, and for 5 tries, which every store counts in the same
//!   atomic step that compares. There are only so many codes an hour for one address, and only so
//!   many codes and tries for one network.
//! - Who reads the database tries all codes against a bare hash in less than a second, salted or not.
//!   So digests are keyed by a [`Pepper`], which lies elsewhere, and bound to their address. The
//!   addresses themselves are stored as such digests, too.
//! - Whether an address has an account is asked, and the letter is sent, in the background: neither the
//!   answer nor its time tells. An address without an account gets a code that nobody ever sees.
//!
//! What is left: who asks for codes in someone's name uses up the codes that she has in that hour.

mod address;
mod code;
mod enrollment;
mod error;
mod host;
mod limits;

pub use address::EmailAddress;
#[cfg(feature = "totp")]
pub(crate) use code::read as read_code;
pub use enrollment::{Enrollment, EnrollmentBuilder};
pub use error::EnrollError;
pub use host::{AccountLookup, CodeMessage, CodeSender, HostError};

#[cfg(doc)]
use crate::secret::Pepper;
