//! Several servers on one store, and what they say when it is gone.

use std::time::Instant;

use reqwest::Method;
use serde_json::json;
use tokio::task::JoinSet;

use super::{Lumo, path_of, reply, with_json};
use crate::{
    products::place::Place,
    support::{
        servers::{eventually, postgres},
        stores,
    },
};

fn on(database: &str) -> Lumo {
    Lumo::with(tempfile::tempdir().unwrap(), &["--database", database])
}

/// Beyond the page: while nobody can tell whether a key is good, it is not said to be bad.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_outage_is_unavailable_and_not_a_rejection() {
    let Some(mut server) = postgres::Options::default().start() else { return };
    let database = server.cluster().database();
    // The other server has never seen the key, so it has to ask.
    let (lumo, other) = (on(database.url()), on(database.url()));
    let key = lumo.key("ada@acme", "CI/CD pipeline").await;
    let body = json!({ "redirect_uris": ["https://app.example/cb"] });
    assert_eq!(lumo.register("acme", &key, &body).await.status, 201);
    server.kill();
    let unknown = keyward::secret::KeyFormat::builder("lumo").build().unwrap().generate().unwrap();
    let unknown = json!({ "key": unknown.expose() });
    for presented in [&key, &unknown] {
        let registering = other.register("acme", presented, &body).await;
        let calling = other.admin("acme", presented, Method::GET, "/users").await;
        for said in [registering, calling] {
            assert_eq!(said.status, 503, "{said:?}");
            assert_ne!(said.field("retry-after"), "");
            assert_eq!(said.field("www-authenticate"), "");
        }
    }
    for (method, path) in [
        (Method::GET, "/api-keys".to_owned()),
        (Method::POST, "/api-keys".into()),
        (Method::DELETE, path_of(&key)),
        (Method::POST, format!("{}/rotate", path_of(&key))),
    ] {
        let said = other.portal("ada@acme", method, &path, &json!({ "name": "x" })).await;
        assert_eq!(said.status, 503, "{path}: {said:?}");
    }
    server.restart();
    eventually("the key works again", async || {
        let said = other.register("acme", &key, &body).await;
        assert!([201, 503].contains(&said.status), "{said:?}");
        said.status == 201
    })
    .await;
    assert_eq!(other.listed("ada@acme").await.len(), 1);
}

/// Beyond the page: each key has a rate of its own, which two servers that count in Redis hold together.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_share_one_rate_limit() {
    let Some(place) = &Place::postgres_and_redis().await else { return };
    let servers = [Lumo::start(place), Lumo::start(place)];
    let [busy, idle] =
        [servers[0].key("ada@acme", "busy").await, servers[1].key("ada@acme", "idle").await];
    for lumo in &servers {
        for tenant in ["globex", "initech"] {
            assert!(!lumo.works(tenant, &busy).await);
        }
    }
    let (begun, mut accepted) = (Instant::now(), 0);
    for lumo in servers.iter().cycle().take(800) {
        let used = lumo.admin("acme", &busy, Method::GET, "/users").await;
        assert!(used.field("ratelimit-policy").starts_with(r#""key";q=600;w=60"#), "{used:?}");
        assert!([200, 429].contains(&used.status), "{used:?}");
        accepted += u64::from(used.status == 200);
    }
    // What Redis keeps ends by its own clock, which does not stand still: ten of them each second.
    let most = 600 + 10 * (begun.elapsed().as_secs() + 1);
    assert!((600..=most).contains(&accepted), "{accepted} of {most}");
    let body = json!({ "redirect_uris": ["https://app.example/cb"] });
    for lumo in &servers {
        assert_eq!(lumo.register("acme", &idle, &body).await.status, 201);
    }
    let rotate = format!("{}/rotate", path_of(&idle));
    let new = servers[0].portal("ada@acme", Method::POST, &rotate, &json!({})).await.body;
    assert!(!servers[0].works("acme", &idle).await);
    eventually("the other has heard", async || !servers[1].works("acme", &idle).await).await;
    assert!(servers[1].works("acme", &new).await);
}

/// Beyond the page: 64 administrators at once, in two tenants, make as many keys as each tenant may have.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_creation_in_two_tenants_respects_each_limit() {
    let Some(place) = Place::sqlite().await else { return };
    races(&[&Lumo::start(&place)]).await;
    if let Some(database) = stores::postgres().await {
        races(&[&on(database.url()), &on(database.url())]).await;
    }
}

async fn races(servers: &[&Lumo]) {
    let mut racing = JoinSet::new();
    for n in 0..64 {
        let (tenant, session) = [("acme", "ada@acme"), ("globex", "gus@globex")][n % 2];
        let lumo = servers[n / 2 % servers.len()];
        let request = lumo.request(Method::POST, &format!("/t/{tenant}/portal/settings/api-keys"));
        let request = request.header("cookie", format!("session={session}"));
        let request = with_json(request, &json!({ "name": format!("service {n}") }));
        racing.spawn(async move { (tenant, reply(request).await) });
    }
    let said = racing.join_all().await;
    for (tenant, session, most) in [("acme", "ada@acme", 10), ("globex", "gus@globex", 5)] {
        let here: Vec<_> = said.iter().filter(|(of, _)| *of == tenant).map(|(_, it)| it).collect();
        let made: Vec<_> = here.iter().filter(|reply| reply.status == 201).collect();
        let full = here.iter().filter(|reply| reply.status == 409 && reply.body["limit"] == most);
        assert_eq!((here.len(), made.len(), full.count()), (32, most, 32 - most), "{tenant}");
        assert_eq!(servers[0].listed(session).await.len(), most);
        for key in made {
            let other = if tenant == "acme" { "globex" } else { "acme" };
            assert!(servers[0].works(tenant, &key.body).await);
            assert!(!servers[0].works(other, &key.body).await);
        }
    }
}
