//! Compiles and runs the snippets of the README and the manual as doctests. As doctests of `keyward` itself, they would
//! need the dependencies of all examples.

#[doc = include_str!("../README.md")]
pub mod readme {}

#[path = "../src/manual/mod.rs"]
pub mod manual;
