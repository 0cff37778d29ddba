//! E-mail messages to the owners of keys, and the one-time codes of [`enroll`](crate::enroll).
//!
//! An [`EmailSink`] is an audit sink. It writes to a key's owner when the key is created, rotated or revoked, and when
//! the owner should be reminded of something. The host's [`Recipients`] maps owners to addresses. A [`Mailer`] sends
//! the messages to a mail server over SMTP; it is also a [`CodeSender`](crate::enroll::CodeSender).
//!
//! Sending happens in the background. A message is attempted a few times, with a growing delay between attempts, and
//! the number of pending messages is bounded. [`Mailer::stats`] counts messages that were dropped; with the feature
//! `tracing`, each failed attempt is logged as a warning. Pending messages are kept in memory: call [`Mailer::flush`]
//! before the process exits, or they are lost.
//!
//! # Untrusted text
//! Names, actors and reasons are written as a single line without control characters, and escaped in
//! HTML. Of a user agent, only known product names or plain ASCII letters are repeated. Recipients are
//! [`EmailAddress`](crate::enroll::EmailAddress)es, which cannot contain line breaks or header syntax.

mod mailer;
mod messages;
mod sink;

pub use mailer::{Mailer, MailerBuilder, MailerStats};
pub use messages::{EmailContent, Notice};
pub use sink::{EmailSink, EmailSinkBuilder, Recipients};
