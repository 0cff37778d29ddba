//! What the pages of five products say about their API keys, proven on the programs in `examples/`.
//! Each test quotes what it proves; the table of all statements is `examples/README.md`.

mod lua;
mod lumio;
mod lumoauth;
mod lunaos;
mod lurus;
mod place;
