//! Letters to owners, against a real mail server.

mod hostile;
mod letters;
mod outages;
mod support;
