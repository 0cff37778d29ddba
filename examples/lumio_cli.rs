//! The command line of Lumio: `cargo run --example lumio_cli -- --help`, with `cargo run --example lumio`
//! as the server. `LUMIO_API_URL` says where that is.

use std::{error::Error, process::ExitCode};

use clap::Parser;
use keyward::{
    KeyFormat, Secret,
    client::{
        App, SendKey,
        cli::{AuthCommand, NoServer},
    },
};
use reqwest::{Client, StatusCode};

/// Build extensions from the command line and from CI.
#[derive(Parser)]
#[command(name = "lumio")]
enum Lumio {
    /// Sign in
    Login {
        /// With this API key; `-` reads it from standard input, where nobody else sees it
        #[arg(long, value_name = "KEY")]
        token: Secret,
    },
    /// Show, check and remove the key
    #[command(subcommand)]
    Auth(AuthCommand),
    /// Deploy an extension
    Deploy {
        #[arg(default_value = "extension")]
        extension: String,
    },
}

fn main() -> ExitCode {
    let format = KeyFormat::builder("lm").environment("dev").total_len(64).build();
    let app = App::new("lumio", format.expect("a constant, and a test starts it"));
    match Lumio::parse() {
        Lumio::Login { token } => login(&token).run(&app, &NoServer).into(),
        Lumio::Auth(command) => command.run(&app, &NoServer).into(),
        Lumio::Deploy { extension } => match deploy(&app, &extension) {
            Ok(answer) => {
                println!("{answer}");
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("Error: {error}");
                ExitCode::FAILURE
            }
        },
    }
}

/// The product's own words for one of Keyward's commands.
fn login(token: &Secret) -> AuthCommand {
    #[derive(Parser)]
    struct Keyward {
        #[command(subcommand)]
        command: AuthCommand,
    }
    Keyward::parse_from(["lumio", "configure", "--api-key", token.expose()]).command
}

#[tokio::main(flavor = "current_thread")]
async fn deploy(app: &App, extension: &str) -> Result<String, Box<dyn Error>> {
    let found = app.find(&Default::default())?;
    let base = std::env::var("LUMIO_API_URL").unwrap_or_else(|_| "http://127.0.0.1:3000".into());
    let url = format!("{base}/extensions/{extension}/deploy");
    let request = Client::builder().no_proxy().build()?.post(url).api_key(&found.key);
    let response = request.send().await?;
    match response.status() {
        StatusCode::OK => Ok(String::from_utf8_lossy(&response.bytes().await?).into_owned()),
        StatusCode::UNAUTHORIZED => Err("the key is not accepted: see `lumio auth status`".into()),
        StatusCode::FORBIDDEN => Err("your role in the team may not deploy".into()),
        status => Err(format!("the server answers {status}").into()),
    }
}
