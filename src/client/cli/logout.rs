use serde_json::json;

use super::{
    Common, Console, Server, ServerError,
    console::{Answer, Failure},
    terminal,
};
use crate::client::App;

/// Remove the stored API key.
#[derive(Clone, Debug, clap::Args)]
pub struct Logout {
    /// Do not ask first
    #[arg(long)]
    force: bool,
    /// Also revoke the key on the server, everywhere and for good
    #[arg(long)]
    revoke: bool,
    #[command(flatten)]
    pub(super) common: Common,
}

impl Logout {
    pub(super) fn run(
        &self,
        app: &App,
        server: &dyn Server,
        console: &Console,
    ) -> Result<Answer, Failure> {
        let (file, profile) = (app.credentials()?, &self.common.profile);
        let Some(stored) = file.load(profile)? else {
            if self.revoke {
                return Err(app.no_key(profile, Some(file.path())).into());
            }
            // Sweeps up what a killed writer may have left.
            file.remove(profile)?;
            still_there(app, console);
            let text = format!("No API key is stored in {}", file.path().display());
            return Ok(Answer::new(text, json!({ "deleted": false, "revoked": false })));
        };
        stored.warning.iter().for_each(|warning| console.note(warning));
        if !self.force {
            if !terminal::can_ask() {
                return Err(Failure::no_terminal("add --force to delete the key unasked"));
            }
            terminal::confirm(
                "Are you sure you want to delete your API key? This action cannot be undone.",
            )?;
        }
        if self.revoke {
            // First: a key that is no longer at hand could not be revoked on another try.
            let key = app.parse(&stored.text, &file.path().display().to_string())?;
            match server.revoke_key(&key) {
                Ok(()) => {}
                Err(ServerError::Rejected) => {
                    console
                        .note("The server did not accept the key any more, before it was deleted");
                }
                Err(error) => return Err(Failure::server(error, app, None)),
            }
        }
        file.remove(profile)?;
        if !self.revoke {
            console.note(
                "The key itself stays valid on the server, wherever else it is used. To end it, revoke it on \
                 the product's web pages; the next time, `logout --revoke` does both",
            );
        }
        still_there(app, console);
        let json = json!({ "deleted": true, "revoked": self.revoke, "path": file.path().to_string_lossy() });
        Ok(Answer::new("API key deleted successfully.", json))
    }
}

/// Says so if the program stays signed in by another place.
fn still_there(app: &App, console: &Console) {
    if let Some((source, _)) = app.in_variable() {
        console.note(format!("The {source} is set, and is used: unset it to be signed out"));
    } else if let Ok(Some((source, _))) = app.in_dotenv() {
        console.note(format!(
            "There is {source}, which is used from now on: remove it to be signed out"
        ));
    }
}
