//! A first key for a person who has none: by a code that is sent to her e-mail address.
//!
//! [`request`](Enrolment::request) has six digits sent; [`verify`](Enrolment::verify) takes them and
//! issues a key. The host says through [`Members`] whose account an address is, and sends the
//! [`Letter`] through [`Post`]. `http::manage::SignIn` is the same over HTTP.
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
mod enrolment;
mod error;
mod host;
mod limits;

pub use address::EmailAddress;
#[cfg(feature = "totp")]
pub(crate) use code::read as read_code;
pub use enrolment::{Enrolment, EnrolmentBuilder};
pub use error::EnrolError;
pub use host::{HostError, Letter, Members, Post};

#[cfg(doc)]
use crate::secret::Pepper;
