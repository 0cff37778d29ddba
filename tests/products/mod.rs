//! Tests that five example programs do what the products' own pages say about API keys.
//! Each test quotes the statements that it checks. `examples/README.md` lists all statements.

mod backend;
mod lua;
mod lumio;
mod lumoauth;
mod lunaos;
mod lurus;
mod serving;
