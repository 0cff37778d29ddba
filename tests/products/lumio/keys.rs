//! API keys, and the command line that uses them.

use std::{fs, process::Stdio, time::Instant};

use regex::Regex;
use reqwest::Method;
use serde_json::{Value, json};

use super::{ADA, BOB, Credential, Deployment, KEYS, LOG, Lumio, present};
use crate::{
    client::support::{CommandResult, TestUser, mode},
    products::backend::{Backend, on_each_backend},
    support::{examples::example, servers::eventually},
};

/// > Keys are prefixed with lm_dev_ and are 64 characters long.
async fn a_key_starts_with_lm_dev_and_has_64_characters(backend: &Backend) {
    let lumio = Deployment::new(backend).server();
    let ada = lumio.sign_up(ADA).await;
    let format = Regex::new("^lm_dev_[0-9A-Za-z]{57}$").unwrap();
    for n in 0..20 {
        let created = lumio.create(&ada, &format!("key {n}")).await;
        let key = created["key"].as_str().unwrap();
        assert!(format.is_match(key) && key.len() == 64, "{key}");
    }
}

/// > Navigate to Account → Security → API Keys. Click New API Key. Enter a label (e.g. ci-github-actions).
/// > Copy the key — it is shown only once
async fn a_key_has_a_label_and_is_shown_once(backend: &Backend) {
    let lumio = Deployment::new(backend).server();
    let ada = lumio.sign_up(ADA).await;
    let created = lumio.create(&ada, "ci-github-actions").await;
    assert_eq!(created["name"], "ci-github-actions");
    assert_eq!(lumio.deploy(&present(&created)).await, 200);
    let one = format!("{KEYS}/{}", created["id"].as_str().unwrap());
    for path in [KEYS, &one, "/account/security/audit", LOG] {
        let response = lumio.get(path, &ada).await.to_string();
        assert!(
            response.contains("ci-github-actions") || response.contains("key.created"),
            "{path}"
        );
        assert!(!response.contains(created["key"].as_str().unwrap()), "{path}");
    }
    for unauthorized in [Credential("accept", "*/*".into()), present(&created)] {
        assert_eq!(lumio.post(KEYS, &unauthorized, json!({ "name": "x" })).await.0, 401);
    }
}

/// Not on the page: a session beside a key is ignored, because the key says who is calling.
async fn a_session_beside_a_key_is_ignored(backend: &Backend) {
    let lumio = Deployment::new(backend).server();
    let (ada, bob) = (lumio.sign_up(ADA).await, lumio.sign_up(BOB).await);
    let Credential(name, of_bob) = present(&lumio.create(&bob, "ci").await);
    let ask = async |method: Method, path: &str| {
        let request = lumio.request(method, path).header("cookie", &ada.1).header(name, &of_bob);
        let request = request.header("content-type", "application/json");
        let body = json!({ "name": "x", "email": "eve@example.com", "role": "member" });
        request.body(body.to_string()).send().await.unwrap().status().as_u16()
    };
    for method in [Method::GET, Method::POST] {
        assert_eq!(ask(method.clone(), KEYS).await, 401, "{method}");
        assert_eq!(ask(method.clone(), "/account/team").await, 401, "{method}");
    }
    assert_eq!(lumio.get(KEYS, &ada).await, json!({ "keys": [] }), "nothing was done for Ada");
}

/// > All API keys inherit the permissions of the account that created them. There is no per-key scope
/// > restriction.
async fn requested_scopes_are_rejected(backend: &Backend) {
    let lumio = Deployment::new(backend).server();
    let ada = lumio.sign_up(ADA).await;
    let created = lumio.create(&ada, "ci").await;
    assert_eq!(
        lumio.permissions(&present(&created)).await,
        [200; 3],
        "all permissions of an owner"
    );
    let one = format!("{KEYS}/{}", created["id"].as_str().unwrap());
    for scopes in [json!(["deploy"]), json!([]), Value::Null] {
        let asked = json!({ "name": "narrow", "scopes": scopes });
        let refused = lumio.post(KEYS, &ada, asked.clone()).await;
        assert_eq!(refused, (400, json!({ "code": "no_scopes_per_key" })));
        assert_eq!(lumio.call(Method::PATCH, &one, &ada, asked).await.0, 400);
    }
    assert_eq!(lumio.get(KEYS, &ada).await["keys"].as_array().unwrap().len(), 1);
    assert_eq!(lumio.permissions(&present(&created)).await, [200; 3]);
}

/// > Revoke a key immediately from Account → Security → API Keys → Revoke. Revocation takes effect within
/// > 30 seconds across all API regions. Revoked keys cannot be restored.
async fn a_revoked_key_stops_in_all_regions_and_cannot_be_restored(backend: &Backend) {
    let deployment = Deployment::new(backend);
    let [here, elsewhere] = [deployment.server(), deployment.server()];
    let ada = here.sign_up(ADA).await;
    let created = here.create(&ada, "ci").await;
    let key = present(&created);
    for lumio in [&here, &elsewhere, &here, &elsewhere] {
        assert_eq!(lumio.deploy(&key).await, 200);
    }
    here.revoke(&ada, &created).await;
    assert_eq!(here.deploy(&key).await, 401);
    eventually("the other region to reject the key", async || elsewhere.deploy(&key).await == 401)
        .await;
    for again in ["enable", "rotate"] {
        let path = format!("{KEYS}/{}/{again}", created["id"].as_str().unwrap());
        let (status, refused) = here.post(&path, &ada, json!({})).await;
        assert_eq!((status, &refused["code"]), (409, &json!("not_live")), "{again}");
    }
    for lumio in [&here, &elsewhere] {
        assert_eq!(lumio.deploy(&key).await, 401);
    }
}

/// > Rotate API keys every 90 days
async fn after_90_days_a_rotation_is_due(backend: &Backend) {
    let deployment = Deployment::new(backend);
    let first = deployment.server();
    let ada = first.sign_up(ADA).await;
    let created = [first.create(&ada, "old").await, first.create(&ada, "rotated").await];
    let due = async |lumio: &Lumio| {
        let response = lumio.get("/account/security/audit?event=key.rotation_due", &ada).await;
        let response =
            response["events"].as_array().unwrap().iter().map(|event| event["keyId"].clone());
        response.collect::<Vec<_>>()
    };
    let later = deployment.server_on("2026-05-09");
    assert_eq!(
        later.deploy(&present(&created[0])).await,
        200,
        "a request starts the background tasks"
    );
    let path = format!("{KEYS}/{}/rotate", created[1]["id"].as_str().unwrap());
    let (status, rotated) = later.post(&path, &ada, json!({})).await;
    assert_eq!(status, 200);
    assert_eq!(later.deploy(&present(&created[1])).await, 401, "the old secret");
    assert_eq!(later.deploy(&present(&rotated)).await, 200);

    let on_the_day = deployment.server_on("2026-05-10");
    assert_eq!(on_the_day.deploy(&present(&created[0])).await, 200, "rotation is only recommended");
    eventually("the reminder in the log", async || {
        due(&on_the_day).await == [created[0]["id"].clone()]
    })
    .await;
    assert_eq!(due(&later).await.len(), 1, "only one reminder is logged");
}

/// Runs the command line with these arguments.
fn cli(
    user: &TestUser,
    lumio: &Lumio,
    variables: &[(&str, &str)],
    arguments: &[&str],
) -> CommandResult {
    let mut command = user.command(example("lumio_cli"));
    command.env("LUMIO_API_URL", lumio.server.url()).envs(variables.iter().copied());
    command.args(arguments).stdin(Stdio::null());
    command.output().unwrap().into()
}

/// > The lumio CLI (lumio login --token <key>)
/// > API keys are long-lived credentials scoped to your developer account.
async fn the_cli_signs_in_with_a_token_and_deploys(backend: &Backend) {
    let lumio = Deployment::new(backend).server();
    let ada = lumio.sign_up(ADA).await;
    let created = lumio.create(&ada, "laptop").await;
    let (key, user) = (created["key"].as_str().unwrap(), TestUser::new());
    cli(&user, &lumio, &[], &["deploy"]).assert_fails(1, "No API key found");
    cli(&user, &lumio, &[], &["login", "--token", &key[..63]]).assert_fails(1, "63 characters");
    let result = cli(&user, &lumio, &[], &["login", "--token", key]);
    assert_eq!(result.status, 0, "{}", result.stderr);
    assert!(!result.stdout.contains(key) && !result.stderr.contains(key));
    let file = user.home().join(".lumio/credentials");
    assert_eq!(mode(&file), 0o600);
    assert!(fs::read_to_string(&file).unwrap().contains(key));
    let result = cli(&user, &lumio, &[], &["deploy", "weather"]);
    assert_eq!((result.status, result.stderr.as_str()), (0, ""));
    assert!(result.stdout.contains("weather"), "{}", result.stdout);
    lumio.revoke(&ada, &created).await;
    cli(&user, &lumio, &[], &["deploy", "weather"]).assert_fails(1, "the key is not accepted");
}

/// > CI/CD pipelines running lumio deploy
/// > Direct calls to the Developer REST API
/// > Store API keys in your CI/CD secret store. Use environment-specific keys — a separate key for staging
/// > vs production deployments
async fn a_pipeline_deploys_with_its_own_key(backend: &Backend) {
    let lumio = Deployment::new(backend).server();
    let ada = lumio.sign_up(ADA).await;
    let [staging, production] =
        [lumio.create(&ada, "staging").await, lumio.create(&ada, "production").await];
    let runner = TestUser::new();
    let deploy = |key: &Value| {
        cli(&runner, &lumio, &[("LUMIO_API_KEY", key["key"].as_str().unwrap())], &["deploy"])
    };
    for key in [&staging, &production] {
        assert_eq!(deploy(key).status, 0);
    }
    lumio.revoke(&ada, &staging).await;
    deploy(&staging).assert_fails(1, "the key is not accepted");
    assert_eq!(deploy(&production).status, 0);
    let bearer = format!("Bearer {}", production["key"].as_str().unwrap());
    assert_eq!(lumio.deploy(&Credential("authorization", bearer)).await, 200);
}

/// Not on the page: two servers share one rate limit through Redis.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_share_one_rate_limit() {
    let Some(backend) = Backend::postgres_and_redis().await else { return };
    let deployment = Deployment::new(&backend);
    let servers = [deployment.server(), deployment.server()];
    let by = servers[0].sign_up(BOB).await;
    let key = present(&servers[0].create(&by, "ci").await);
    let (begun, mut accepted) = (Instant::now(), 0);
    for lumio in servers.iter().cycle().take(240) {
        accepted += u64::from(lumio.deploy(&key).await == 200);
    }
    // Redis uses its own clock, which is not stopped.
    let most = 60 + begun.elapsed().as_secs() + 1;
    assert!((60..=most).contains(&accepted), "{accepted} of {most}");
}

on_each_backend!([sqlite, postgres_and_redis] {
    a_revoked_key_stops_in_all_regions_and_cannot_be_restored,
    a_key_starts_with_lm_dev_and_has_64_characters,
    a_key_has_a_label_and_is_shown_once,
    a_session_beside_a_key_is_ignored,
    requested_scopes_are_rejected,
    after_90_days_a_rotation_is_due,
    the_cli_signs_in_with_a_token_and_deploys,
    a_pipeline_deploys_with_its_own_key,
});
