//! What every store has to do, and whether the suite that says so would notice if one did not.

mod conformance;
mod postgres;
mod redis;
mod sabotage;
mod sqlite;
