//! Tests of the client on real files, pipes and terminals. The program under test is `examples/lua_cli`.

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
mod unsafe_file;
