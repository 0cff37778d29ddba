//! Sign-in and sign-out commands to mount in a `clap` command line.
//!
//! ```
//! use clap::Parser;
//! use keyward::{KeyFormat, client::{App, cli::{AuthCommand, NoServer}}};
//!
//! /// The Lua command line.
//! #[derive(Parser)]
//! enum Lua {
//!     /// Sign in and out.
//!     #[command(subcommand)]
//!     Auth(AuthCommand),
//! }
//!
//! # fn main() -> Result<(), keyward::secret::FormatError> {
//! let app = App::new("lua", KeyFormat::builder("lk").build()?).credentials_dir(".lua-cli");
//! # if false {
//! let Lua::Auth(command) = Lua::parse();
//! command.run(&app, &NoServer).exit();
//! # }
//! # Ok(()) }
//! ```
//!
//! The commands make no network calls themselves: the program implements [`Server`], or passes [`NoServer`].
//!
//! # Behaviour of all commands
//! - The result goes to standard output, everything else to standard error: `key --force | pbcopy` copies
//!   only the key.
//! - With `--json`, standard output is one JSON object, also for an error:
//!   `{"error": {"kind": …, "message": …}}`. Usage errors that `clap` detects stay plain text.
//! - Prompts appear only if standard input is a terminal. Otherwise the error names the option or variable to
//!   use instead. Ctrl-C at a prompt cancels the command without changes.
//! - A hidden prompt disables the terminal's echo until it is answered. If the process is killed by a signal
//!   meanwhile (`kill`, not Ctrl-C), restore the echo with `stty sane`: the commands install no signal
//!   handlers, because those belong to the program.
//! - Colours are used only on a terminal, and not if `NO_COLOR` is set.
//! - The exit status names the outcome: see [`Exit`].

mod commands;
mod console;
mod server;
mod terminal;

pub use commands::{AuthCommand, Configure, Logout, ShowKey, ShowStatus};
pub use console::Exit;
pub use server::{NoServer, Server, ServerError};
