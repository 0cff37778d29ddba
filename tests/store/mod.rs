//! The conformance of every store, and sabotaged stores that prove that the suite detects violations.

mod conformance;
mod postgres;
mod redis;
mod sabotage;
mod sqlite;
