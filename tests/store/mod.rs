//! The conformance of every store, and sabotaged stores that prove that the suite detects violations.

mod conformance;
mod partial;
mod postgres;
mod redis;
pub mod sabotage;
mod sqlite;
