//! Letters to owners, against a real mail server.

pub mod hostile;
mod letters;
mod outages;
mod support;
