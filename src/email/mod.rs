//! Letters to the owners of keys: what happened to them, and the codes of
//! [enrollment](crate::enroll).
//!
//! An [`EmailSink`] is an audit sink that writes to a key's owner when it was created, rotated or
//! revoked, and when it reminds of something. The host says through [`Recipients`] to which address.
//! A [`Mailer`] brings letters to the mail server, and is also a [`CodeSender`] for codes.
//!
//! Nothing waits for a letter. Each has a few attempts, with pauses between them, and only so many
//! wait at a time; what could not be sent is counted by [`Mailer::stats`], and told to `tracing` if
//! that feature is on. Letters wait in memory: those of a process that ends are lost, unless it waits
//! for [`Mailer::flush`].
//!
//! # Hostile words
//! Names, actors and reasons are written as one harmless line, escaped in HTML; of a user agent come
//! only words that are known here, or plain letters. Addresses are
//! [`EmailAddress`](crate::enroll::EmailAddress)es, which hold nothing that a header could be made of.

mod device;
mod letter;
mod mailer;
mod retries;
mod sink;
#[cfg(feature = "tracing")]
mod trouble;
#[cfg(not(feature = "tracing"))]
#[path = "no_trouble.rs"]
mod trouble;
mod wording;

pub use mailer::{Mailer, MailerBuilder, MailerStats};
pub use sink::{EmailSink, EmailSinkBuilder, Recipients};
pub use wording::{EmailContent, Notice};

#[cfg(doc)]
use crate::enroll::CodeSender;
