//! E-mail messages to owners, sent to a real mail server.

pub mod hostile;
mod messages;
mod outages;
mod support;
