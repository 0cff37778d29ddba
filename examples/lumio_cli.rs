//! The command line of Lumio: `cargo run --example lumio_cli -- --help`, with `cargo run --example lumio`
//! as the server. `LUMIO_API_URL` says where that is.

use std::{error::Error, process::ExitCode};

use clap::Parser;
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
        /// With this API key
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
    let done = match Lumio::parse() {
        Lumio::Login { token } => login(&app, &token),
        Lumio::Auth(command) => return command.run(&app, &NoServer).into(),
        Lumio::Deploy { extension } => deploy(&app, &extension),
    };
    match done {
        Ok(answer) => {
            println!("{answer}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("Error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Keeps the key for the owner alone. Who does not want it in the shell's history pipes it into
/// `lumio auth configure --api-key-stdin`, or sets LUMIO_API_KEY.
fn login(app: &App, token: &Secret) -> Result<String, Box<dyn Error>> {
    let (key, file) = (app.parse(token.expose(), "--token")?, app.credentials()?);
    if let Some(warning) = file.save(&Profile::default(), &key)? {
        eprintln!("Note: {warning}");
    }
    Ok(format!("API key {}******** stored in {}", app.hint(&key), file.path().display()))
}

#[tokio::main(flavor = "current_thread")]
async fn deploy(app: &App, extension: &str) -> Result<String, Box<dyn Error>> {
    let found = app.find(&Profile::default())?;
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
