use serde_json::json;

use super::{
    Common, Console, Exit, Server, ServerError,
    console::{Answer, Failure, source_json},
};
use crate::client::{App, Found};

/// Tell which API key is used, and where it comes from.
#[derive(Clone, Debug, clap::Args)]
pub struct ShowStatus {
    /// Ask the server whether it accepts the key
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    pub(super) common: Common,
}

impl ShowStatus {
    pub(super) fn run(
        &self,
        app: &App,
        server: &dyn Server,
        console: &Console,
    ) -> Result<Answer, Failure> {
        let found = app.find(&self.common.profile)?;
        found.warnings.iter().for_each(|warning| console.note(warning));
        let mut answer = describe(&found);
        if self.check {
            let accepted = match server.check_key(&found.key) {
                Ok(()) => true,
                Err(ServerError::Rejected) => false,
                Err(error) => return Err(Failure::server(error, app, None)),
            };
            answer.json["accepted"] = accepted.into();
            answer.text.push_str("\nServer   ");
            answer.text.push_str(if accepted { "accepts it" } else { "does not accept it" });
            if !accepted {
                answer.exit = Exit::NotAuthenticated;
                let (command, name) = (app.command_name(), app.name());
                console.note(format!(
                    "❌ Authentication failed: the key may have been revoked, or belong to another server than \
                     this {name}. Store a new one with `{command} configure`"
                ));
            }
        }
        Ok(answer)
    }
}

fn describe(found: &Found) -> Answer {
    let mode = found.mode.map(|mode| format!("{mode:04o}"));
    let mut text = format!("Key      {}\nSource   {}", found.masked(), found.source);
    if let Some(mode) = &mode {
        text.push_str(&format!("\nMode     {mode}"));
    }
    for hidden in &found.shadowed {
        text.push_str(&format!("\nShadows  {hidden}"));
    }
    let json = json!({
        "hint": found.hint,
        "source": source_json(&found.source),
        "mode": mode,
        "shadows": found.shadowed.iter().map(source_json).collect::<Vec<_>>(),
    });
    Answer::new(text, json)
}
