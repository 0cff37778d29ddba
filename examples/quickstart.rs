//! The life cycle of an API key, from creation to revocation: `cargo run --example quickstart`.

use std::time::Duration;

use keyward::{
    Access, Actor, ApiKeys, AuditQuery, Expiry, KeyFormat, MemoryStore, NewKey, Owner, VerifyError,
    VerifyRequest,
    manage::{Page, Rotation},
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // In a service, `SqliteStore`, `PostgresStore` or `RedisStore`.
    let store = MemoryStore::new();
    let format = KeyFormat::builder("lc").environment("live").build()?;
    let keys = ApiKeys::builder(store, format).build();

    // The host has authenticated the user. Here it is Ada, in her browser.
    let ada = Owner::new("acme", "ada")?;
    let actor = Actor::account("ada@acme.example").ip("192.0.2.7".parse()?).user_agent("Firefox");

    title("Ada creates a key for her CI pipeline");
    let new = NewKey::new(&ada, "ci-pipeline")?
        .access(Access::only(["builds:read", "builds:write"])?)
        .expiry(Expiry::DAYS_90);
    let issued = keys.issue(new, &actor).await?;
    let id = issued.key.id;
    println!("  {}   <- the secret: shown once, never stored", issued.secret.expose());
    println!("  {}…   <- the hint: shown in lists and emails", issued.key.hint);

    title("Requests present a secret");
    let read = VerifyRequest::new().tenant("acme").require(&["builds:read"]);
    let deploy = VerifyRequest::new().tenant("acme").require(&["deploy"]);
    let random = keys.formats().current().generate()?;
    let typo = mistyped(issued.secret.expose());
    let other_tenant = VerifyRequest::new().tenant("umbrella");
    show("permitted scope", keys.verify(issued.secret.expose(), &read).await);
    show("scope that the key lacks", keys.verify(issued.secret.expose(), &deploy).await);
    show("another tenant", keys.verify(issued.secret.expose(), &other_tenant).await);
    show("well-formed random secret", keys.verify(random.expose(), &read).await);
    show("mistyped secret", keys.verify(&typo, &read).await);

    title("Ada rotates the key; the old secret works for one more day");
    let day = Duration::from_secs(24 * 3_600);
    let rotated = keys.rotate(&ada, id, Rotation::overlap(day), &actor).await?;
    show("old secret", keys.verify(issued.secret.expose(), &read).await);
    show("new secret", keys.verify(rotated.secret.expose(), &read).await);

    title("Ada revokes the key because her laptop was stolen");
    keys.revoke(&ada, id, "laptop stolen", &actor).await?;
    show("old secret", keys.verify(issued.secret.expose(), &read).await);
    show("new secret", keys.verify(rotated.secret.expose(), &read).await);

    title("Ada's keys");
    let replacement = keys.issue(NewKey::new(&ada, "new laptop")?, &actor).await?;
    for key in keys.list(&ada, Page::first()).await?.keys {
        let status = key.status(replacement.key.created_at).as_str();
        println!("  {status:<8}  {}…  {}", key.hint, key.name);
    }

    title("Audit log of Ada's keys");
    // Audit events of verifications are written in the background. `flush` waits until they are stored.
    keys.flush().await?;
    let mut events = keys.events(AuditQuery::new(&ada)).await?;
    events.sort_by_key(|event| (event.at, event.id));
    for event in events {
        let (time, kind, count) = (event.at.to_string(), event.kind.as_str(), event.count);
        let actor = if event.actor.starts_with("key:") { "the key itself" } else { &event.actor };
        let reason = event.reason.unwrap_or_default();
        println!("  {}  {kind:<15}  {count}x  {actor:<16}  {reason}", &time[11..23]);
    }
    Ok(())
}

/// Returns the secret with its last character changed. The checksum detects this without a store query.
fn mistyped(secret: &str) -> String {
    let (head, last) = secret.split_at(secret.len() - 1);
    format!("{head}{}", if last == "x" { "y" } else { "x" })
}

fn title(text: &str) {
    println!("\n{text}");
}

fn show(case: &str, result: Result<keyward::Verified, VerifyError>) {
    let outcome = match result {
        Ok(verified) => format!("accepted for {}", verified.owner().account()),
        Err(VerifyError::Denied(denied)) => format!("denied: {}", denied.reason().as_str()),
        Err(VerifyError::Limited(limited)) => format!("rate limited: {limited}"),
        Err(VerifyError::Unavailable(error)) => format!("store unavailable: {error}"),
    };
    println!("  {case:<26}  {outcome}");
}
