use serde_json::json;

use super::{
    Common, Console,
    console::{Answer, Failure, source_json},
    terminal,
};
use crate::client::App;

/// Display the API key.
#[derive(Clone, Debug, clap::Args)]
pub struct ShowKey {
    /// Do not ask first
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    pub(super) common: Common,
}

impl ShowKey {
    pub(super) fn run(&self, app: &App, console: &Console) -> Result<Answer, Failure> {
        let found = app.find(&self.common.profile)?;
        found.warnings.iter().for_each(|warning| console.note(warning));
        if !self.force {
            if !terminal::can_ask() {
                return Err(Failure::no_terminal("add --force to display the key unasked"));
            }
            terminal::confirm(
                "This will display your API key. Are you sure you want to continue?",
            )?;
        }
        console.caption("🔑 Your API key:");
        let json = json!({ "api_key": found.key.expose(), "source": source_json(&found.source) });
        Ok(Answer::new(found.key.expose(), json))
    }
}
