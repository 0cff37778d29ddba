//! A first key by an e-mail code: on every store, with two nodes where a store has two handles.

mod guesses;
mod limits;
mod requests;
pub mod support;
