//! Several servers with one store, and a store outage.

use std::time::Instant;

use reqwest::Method;
use serde_json::json;
use tokio::task::JoinSet;

use super::{Lumo, path_of, reply, with_json};
use crate::{
    products::backend::Backend,
    support::{
        servers::{eventually, postgres},
        stores,
    },
};

fn start_on(database: &str) -> Lumo {
    Lumo::start_with(tempfile::tempdir().unwrap(), &["--database", database])
}

/// Not on the page: while the store is down, no key is reported as invalid.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_outage_is_unavailable_and_not_a_rejection() {
    let Some(mut server) = postgres::Options::default().start() else { return };
    let database = server.cluster().database();
    // The other server has not cached the key, so it must query the store.
    let (lumo, other) = (start_on(database.url()), start_on(database.url()));
    let key = lumo.key("ada@acme", "CI/CD pipeline").await;
    let body = json!({ "redirect_uris": ["https://app.example/cb"] });
    assert_eq!(lumo.register("acme", &key, &body).await.status, 201);
    server.kill();
    let unknown = keyward::secret::KeyFormat::builder("lumo").build().unwrap().generate().unwrap();
    let unknown = json!({ "key": unknown.expose() });
    for presented in [&key, &unknown] {
        let registration = other.register("acme", presented, &body).await;
        let call = other.admin("acme", presented, Method::GET, "/users").await;
        for reply in [registration, call] {
            assert_eq!(reply.status, 503, "{reply:?}");
            assert_ne!(reply.header("retry-after"), "");
            assert_eq!(reply.header("www-authenticate"), "");
        }
    }
    for (method, path) in [
        (Method::GET, "/api-keys".to_owned()),
        (Method::POST, "/api-keys".into()),
        (Method::DELETE, path_of(&key)),
        (Method::POST, format!("{}/rotate", path_of(&key))),
    ] {
        let reply = other.portal("ada@acme", method, &path, &json!({ "name": "x" })).await;
        assert_eq!(reply.status, 503, "{path}: {reply:?}");
    }
    server.restart();
    eventually("the key works again", async || {
        let reply = other.register("acme", &key, &body).await;
        assert!([201, 503].contains(&reply.status), "{reply:?}");
        reply.status == 201
    })
    .await;
    assert_eq!(other.listed("ada@acme").await.len(), 1);
}

/// Not on the page: each key has its own rate limit, which two servers share through Redis.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_share_one_rate_limit() {
    let Some(backend) = &Backend::postgres_and_redis().await else { return };
    let servers = [Lumo::start(backend), Lumo::start(backend)];
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
        assert!(used.header("ratelimit-policy").starts_with(r#""key";q=600;w=60"#), "{used:?}");
        assert!([200, 429].contains(&used.status), "{used:?}");
        accepted += u64::from(used.status == 200);
    }
    // Redis uses its own clock: the limit refills by ten requests per second.
    let max = 600 + 10 * (begun.elapsed().as_secs() + 1);
    assert!((600..=max).contains(&accepted), "{accepted} of {max}");
    let body = json!({ "redirect_uris": ["https://app.example/cb"] });
    for lumo in &servers {
        assert_eq!(lumo.register("acme", &idle, &body).await.status, 201);
    }
    let rotate = format!("{}/rotate", path_of(&idle));
    let new = servers[0].portal("ada@acme", Method::POST, &rotate, &json!({})).await.body;
    assert!(!servers[0].works("acme", &idle).await);
    eventually("the other server to reject the old secret", async || {
        !servers[1].works("acme", &idle).await
    })
    .await;
    assert!(servers[1].works("acme", &new).await);
}

/// Not on the page: 64 concurrent requests in two tenants create exactly as many keys as each tenant may have.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_creation_in_two_tenants_respects_each_limit() {
    let Some(backend) = Backend::sqlite().await else { return };
    create_concurrently(&[&Lumo::start(&backend)]).await;
    if let Some(database) = stores::postgres().await {
        create_concurrently(&[&start_on(database.url()), &start_on(database.url())]).await;
    }
}

async fn create_concurrently(servers: &[&Lumo]) {
    let mut racing = JoinSet::new();
    for n in 0..64 {
        let (tenant, session) = [("acme", "ada@acme"), ("globex", "gus@globex")][n % 2];
        let lumo = servers[n / 2 % servers.len()];
        let request = lumo.request(Method::POST, &format!("/t/{tenant}/portal/settings/api-keys"));
        let request = request.header("cookie", format!("session={session}"));
        let request = with_json(request, &json!({ "name": format!("service {n}") }));
        racing.spawn(async move { (tenant, reply(request).await) });
    }
    let replies = racing.join_all().await;
    for (tenant, session, max) in [("acme", "ada@acme", 10), ("globex", "gus@globex", 5)] {
        let here: Vec<_> =
            replies.iter().filter(|(of, _)| *of == tenant).map(|(_, it)| it).collect();
        let created: Vec<_> = here.iter().filter(|reply| reply.status == 201).collect();
        let full = here.iter().filter(|reply| reply.status == 409 && reply.body["limit"] == max);
        assert_eq!((here.len(), created.len(), full.count()), (32, max, 32 - max), "{tenant}");
        assert_eq!(servers[0].listed(session).await.len(), max);
        for key in created {
            let other = if tenant == "acme" { "globex" } else { "acme" };
            assert!(servers[0].works(tenant, &key.body).await);
            assert!(!servers[0].works(other, &key.body).await);
        }
    }
}
