//! The commands with which a program's users sign in and out, to mount in a `clap` command line.
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
//! let app = App::new("lua", KeyFormat::builder("lk").build()?).folder(".lua-cli");
//! # if false {
//! let Lua::Auth(command) = Lua::parse();
//! command.run(&app, &NoServer).exit();
//! # }
//! # Ok(()) }
//! ```
//!
//! The network is the program's: it implements [`Server`], or passes [`NoServer`].
//!
//! # What holds for every command
//! - What was asked for goes to standard output, and everything else to standard error, so that
//!   `key --force | pbcopy` copies the key and nothing more.
//! - With `--json`, standard output has one JSON object, also for an error: `{"error": {"kind": …, "message": …}}`.
//!   Only what `clap` itself refuses stays `clap`'s text.
//! - Questions are asked only where standard input is a terminal; elsewhere the message names the flag
//!   or the variable to use instead. Ctrl-C at a question changes nothing.
//! - A question that is answered unseen switches the terminal's echo off until then. Who kills the
//!   program from outside in that moment (`kill`, not Ctrl-C) has to bring it back by `stty sane`: to
//!   catch such signals would take them from the program that mounts the commands.
//! - Colours only on a terminal, and not if `NO_COLOR` is set.
//! - How it ended can be told by the exit status: see [`Exit`].

mod configure;
mod console;
mod exit;
mod key;
mod logout;
mod server;
mod status;
mod terminal;

pub use configure::Configure;
pub use exit::Exit;
pub use key::ShowKey;
pub use logout::Logout;
pub use server::{NoServer, Server, ServerError};
pub use status::ShowStatus;

use self::console::Console;
use super::{App, Profile};

/// The commands: `configure`, `key`, `status` and `logout`.
#[derive(Clone, Debug, clap::Subcommand)]
#[non_exhaustive]
pub enum AuthCommand {
    /// Set up authentication: store an API key
    Configure(Configure),
    /// Display the API key
    Key(ShowKey),
    /// Tell which API key is used, and where it comes from
    Status(ShowStatus),
    /// Remove the stored API key
    Logout(Logout),
}

impl AuthCommand {
    /// Does what was asked for, talks to the person, and says how it ended.
    pub fn run(&self, app: &App, server: &dyn Server) -> Exit {
        let common = match self {
            Self::Configure(command) => &command.common,
            Self::Key(command) => &command.common,
            Self::Status(command) => &command.common,
            Self::Logout(command) => &command.common,
        };
        let console = Console::new(common.json);
        let done = match self {
            Self::Configure(command) => command.run(app, server, &console),
            Self::Key(command) => command.run(app, &console),
            Self::Status(command) => command.run(app, server, &console),
            Self::Logout(command) => command.run(app, server, &console),
        };
        console.finish(done)
    }
}

#[derive(Clone, Debug, clap::Args)]
struct Common {
    /// Answer with one JSON object
    #[arg(long)]
    json: bool,
    /// Which of several identities in the credentials file
    #[arg(long, value_name = "NAME", default_value_t)]
    profile: Profile,
}
