//! The command line of Lumio: `cargo run -p keyward-tests --example lumio_cli -- --help`. Start the server with
//! `cargo run -p keyward-tests --example lumio`; `LUMIO_API_URL` is its URL.

use std::{error::Error, process::ExitCode};

use clap::{CommandFactory, FromArgMatches, Parser};
use keyward::{
    KeyFormat, Secret,
    client::{
        App, Profile, SendKey,
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
        /// The API key
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
    let app = App::new("lumio", format.expect("the format is constant and valid"));
    // Lumio's server neither sends codes nor checks or revokes a key on its own behalf, so the help does not offer it.
    let command =
        Lumio::command().mut_subcommand("auth", |auth| AuthCommand::offer(auth, &NoServer));
    let lumio = Lumio::from_arg_matches(&command.get_matches()).unwrap_or_else(|e| e.exit());
    let result = match lumio {
        Lumio::Login { token } => login(&app, &token),
        Lumio::Auth(command) => return command.run(&app, &NoServer).into(),
        Lumio::Deploy { extension } => deploy(&app, &extension),
    };
    match result {
        Ok(message) => {
            println!("{message}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("Error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Stores the key with mode 0600. To keep it out of the shell history, pipe it into
/// `lumio auth configure --api-key-stdin` or set LUMIO_API_KEY.
fn login(app: &App, token: &Secret) -> Result<String, Box<dyn Error>> {
    let (key, file) = (app.parse(token.expose(), "--token")?, app.credentials()?);
    if let Some(warning) = file.save(&Profile::default(), &key)? {
        eprintln!("Note: {warning}");
    }
    Ok(format!("API key {}******** stored in {}", app.hint(&key), file.path().display()))
}

#[tokio::main(flavor = "current_thread")]
async fn deploy(app: &App, extension: &str) -> Result<String, Box<dyn Error>> {
    let resolved = app.resolve(&Profile::default())?;
    let base = std::env::var("LUMIO_API_URL").unwrap_or_else(|_| "http://127.0.0.1:3000".into());
    let url = format!("{base}/extensions/{extension}/deploy");
    let request = Client::builder().no_proxy().build()?.post(url).api_key(&resolved.key);
    let response = request.send().await?;
    match response.status() {
        StatusCode::OK => Ok(String::from_utf8_lossy(&response.bytes().await?).into_owned()),
        StatusCode::UNAUTHORIZED => Err("the key is not accepted: run `lumio auth status`".into()),
        StatusCode::FORBIDDEN => Err("your role in the team does not permit deploying".into()),
        status => Err(format!("the server responded with {status}").into()),
    }
}
