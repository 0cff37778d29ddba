//! First keys issued for e-mail codes, on every store, with two nodes where a store has two handles.

mod guesses;
mod limits;
mod requests;
pub mod support;
