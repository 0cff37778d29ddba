//! The command line of Lurus, with the key in an environment variable or a file:
//! `cargo run -p keyward-tests --example lurus_cli -- --help`. Start the server with `cargo run -p keyward-tests --example lurus`; `LURUS_API_URL`
//! is its URL.

use std::{error::Error, process::ExitCode};

use clap::{CommandFactory, FromArgMatches, Parser};
use keyward::{
    KeyFormat,
    client::{
        App, SendKey,
        cli::{AuthCommand, NoServer},
    },
};
use reqwest::{Client, StatusCode};

/// Write code in any environment.
#[derive(Parser)]
#[command(name = "lurus")]
enum Lurus {
    /// Sign in
    Login {
        /// Read the key from a prompt or from standard input
        #[arg(long, required = true)]
        api_key: bool,
    },
    /// Show, check and remove the key
    #[command(subcommand)]
    Auth(AuthCommand),
    /// Run a task
    Code { task: String },
}

fn main() -> ExitCode {
    let format = KeyFormat::builder("lc").build().expect("the format is constant and valid");
    let app = App::new("lurus", format);
    // Lurus has no server calls for these commands, so the help does not offer them.
    let command =
        Lurus::command().mut_subcommand("auth", |auth| AuthCommand::offer(auth, &NoServer));
    match Lurus::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit()) {
        Lurus::Login { .. } => login().run(&app, &NoServer).into(),
        Lurus::Auth(command) => command.run(&app, &NoServer).into(),
        Lurus::Code { task } => match code(&app, task) {
            Ok(output) => {
                println!("{output}");
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("Error: {error}");
                ExitCode::FAILURE
            }
        },
    }
}

/// Maps the product's `login --api-key` to Keyward's `configure --api-key-stdin`.
fn login() -> AuthCommand {
    #[derive(Parser)]
    struct Keyward {
        #[command(subcommand)]
        command: AuthCommand,
    }
    Keyward::parse_from(["lurus", "configure", "--api-key-stdin"]).command
}

#[tokio::main(flavor = "current_thread")]
async fn code(app: &App, task: String) -> Result<String, Box<dyn Error>> {
    let resolved = app.resolve(&Default::default())?;
    let base = std::env::var("LURUS_API_URL").unwrap_or_else(|_| "http://127.0.0.1:3000".into());
    let request = Client::builder().no_proxy().build()?.post(format!("{base}/code"));
    let response = request.api_key(&resolved.key).body(task).send().await?;
    match response.status() {
        StatusCode::OK => Ok(String::from_utf8_lossy(&response.bytes().await?).into_owned()),
        StatusCode::UNAUTHORIZED => Err("the key is not accepted: run `lurus auth status`".into()),
        status => Err(format!("the server responded with {status}").into()),
    }
}
