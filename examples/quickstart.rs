//! The life of an API key, from its making to its end: `cargo run --example quickstart`.

use std::time::Duration;

use keyward::{
    Access, Actor, ApiKeys, AuditQuery, Expiry, KeyFormat, NewKey, Owner, SqliteStore, VerifyError,
    VerifyRequest,
    manage::{Page, Rotation},
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let store = SqliteStore::open(folder.path().join("keys.db")).await?;
    let format = KeyFormat::builder("lc").environment("live").build()?;
    let keys = ApiKeys::builder(store, format).build();

    // The host knows who is calling: here it is Ada, at the keyboard.
    let ada = Owner::new("acme", "ada")?;
    let actor = Actor::account("ada@acme.example").ip("192.0.2.7".parse()?).user_agent("Firefox");

    title("Ada makes a key for her pipeline");
    let new = NewKey::new(&ada, "ci-pipeline")?
        .access(Access::only(["builds:read", "builds:write"])?)
        .expiry(Expiry::DAYS_90);
    let issued = keys.issue(new, &actor).await?;
    let id = issued.key.id;
    println!("  {}   <- shown once, stored nowhere", issued.secret.expose());
    println!("  {}…   <- what lists and mails show from now on", issued.key.hint);

    title("Requests come in");
    let read = VerifyRequest::new().tenant("acme").require(&["builds:read"]);
    let deploy = VerifyRequest::new().tenant("acme").require(&["deploy"]);
    let guess = keys.formats().current().generate()?;
    let typo = mistyped(issued.secret.expose());
    let elsewhere = VerifyRequest::new().tenant("umbrella");
    show("the key, for what it may do", keys.verify(issued.secret.expose(), &read).await);
    show("the key, for something else", keys.verify(issued.secret.expose(), &deploy).await);
    show("the key, at another tenant", keys.verify(issued.secret.expose(), &elsewhere).await);
    show("a well-formed guess", keys.verify(guess.expose(), &read).await);
    show("a typing error", keys.verify(&typo, &read).await);

    title("She rotates it, with a day of overlap for the deployed jobs");
    let day = Duration::from_secs(24 * 3_600);
    let rotated = keys.rotate(&ada, id, Rotation::overlap(day), &actor).await?;
    show("the old secret", keys.verify(issued.secret.expose(), &read).await);
    show("the new secret", keys.verify(rotated.secret.expose(), &read).await);

    title("Her laptop is stolen: she revokes it");
    keys.revoke(&ada, id, "laptop stolen", &actor).await?;
    show("the old secret", keys.verify(issued.secret.expose(), &read).await);
    show("the new secret", keys.verify(rotated.secret.expose(), &read).await);

    title("Her keys");
    let replacement = keys.issue(NewKey::new(&ada, "new laptop")?, &actor).await?;
    for key in keys.list(&ada, Page::first()).await?.keys {
        let status = key.status(replacement.key.created_at).as_str();
        println!("  {status:<8}  {}…  {}", key.hint, key.name);
    }

    title("The audit trail");
    keys.flush().await?; // what verifications leave behind is written by and by, or now
    let mut events = keys.events(AuditQuery::new(&ada)).await?;
    events.sort_by_key(|event| (event.at, event.id));
    for event in events {
        let (time, kind, count) = (event.at.to_string(), event.kind.as_str(), event.count);
        let actor = if event.actor.starts_with("key:") { "the key" } else { &event.actor };
        let reason = event.reason.unwrap_or_default();
        println!("  {}  {kind:<15}  {count}x  {actor:<16}  {reason}", &time[11..23]);
    }
    Ok(())
}

/// One letter is wrong: the checksum tells, and the store is not even asked.
fn mistyped(secret: &str) -> String {
    let (head, last) = secret.split_at(secret.len() - 1);
    format!("{head}{}", if last == "x" { "y" } else { "x" })
}

fn title(text: &str) {
    println!("\n{text}");
}

fn show(what: &str, answer: Result<keyward::Verified, VerifyError>) {
    let answer = match answer {
        Ok(verified) => format!("welcome, {}", verified.owner().account()),
        Err(VerifyError::Denied(denied)) => format!("refused  (log: {})", denied.reason().as_str()),
        Err(VerifyError::Limited(limited)) => format!("too often  ({limited})"),
        Err(VerifyError::Unavailable(error)) => format!("unavailable  ({error})"),
    };
    println!("  {what:<30} {answer}");
}
