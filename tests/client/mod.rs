//! The client's half: on files, through pipes and through a terminal, with `examples/lua_cli` as the program.

mod commands;
mod crash;
mod files;
mod header;
mod hostile;
mod page;
mod prompts;
mod resolve;
pub mod support;
mod types;
