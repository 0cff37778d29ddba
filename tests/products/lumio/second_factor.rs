//! Two-factor authentication with authenticator apps and passkeys.

use keyward::totp::TotpSecret;
use reqwest::{Method, Url};
use serde_json::{Value, json};
use webauthn_authenticator_rs::{WebauthnAuthenticator, softpasskey::SoftPasskey};

use super::{
    ADA, BOB, Credential, Deployment, KEYS, Lumio, Reply, TEAM, change_role, invite, present,
    remove,
};
use crate::products::backend::{Backend, on_each_backend};
use crate::totp::code;

/// An authenticator app.
struct App(TotpSecret);

impl App {
    fn scan(setup: &Value) -> Self {
        let uri = setup["uri"].as_str().unwrap();
        assert!(uri.starts_with("otpauth://totp/Lumio:ada%40example.com?secret="), "{uri}");
        assert!(setup["qr"].as_str().unwrap().starts_with("<svg "));
        let secret = uri.split(['=', '&']).nth(1).unwrap();
        Self(TotpSecret::from_base32(secret).unwrap())
    }

    /// Returns the code at the server's stopped clock plus `steps` time steps.
    fn code_at(&self, steps: i64) -> Value {
        let now = "2026-02-09T12:00:00Z".parse().unwrap();
        json!({ "code": code(&self.0, now, steps) })
    }
}

/// A software passkey authenticator, and the origin of the page that the browser shows.
struct Authenticator(SoftPasskey, Url);

impl Authenticator {
    fn of(lumio: &Lumio) -> Self {
        let origin = lumio.server.url().replace("127.0.0.1", "localhost");
        Self(SoftPasskey::new(true), origin.parse().unwrap())
    }

    fn create(&mut self, options: Value) -> Value {
        let options = serde_json::from_value(options).unwrap();
        json!(self.0.do_registration(self.1.clone(), options).unwrap())
    }

    fn get(&mut self, options: Value) -> Value {
        let options = serde_json::from_value(options).unwrap();
        json!(self.0.do_authentication(self.1.clone(), options).unwrap())
    }
}

impl Lumio {
    async fn two_factor(&self, method: Method, path: &str, by: &Credential, body: Value) -> Reply {
        self.call(method, &format!("/account/security/two-factor{path}"), by, body).await
    }

    /// Starts a second-factor step, and returns the server's challenge.
    async fn start(&self, path: &str, by: &Credential) -> Value {
        let (status, asked) = self.two_factor(Method::POST, path, by, Value::Null).await;
        assert_eq!(status, 200, "{path}: {asked}");
        asked
    }

    /// Sends the response to a challenge.
    async fn finish(&self, path: &str, by: &Credential, answer: Value) -> Reply {
        self.two_factor(Method::PUT, path, by, answer).await
    }

    async fn enter_code(&self, by: &Credential, code: Value) -> Reply {
        self.two_factor(Method::POST, "/code", by, code).await
    }

    async fn enable_app(&self, by: &Credential) -> App {
        let app = App::scan(&self.start("/totp", by).await);
        assert_eq!(self.finish("/totp", by, app.code_at(-1)).await.0, 204);
        app
    }

    async fn add_passkey(&self, by: &Credential) -> Authenticator {
        let mut authenticator = Authenticator::of(self);
        let created = authenticator.create(self.start("/passkeys", by).await);
        assert_eq!(self.finish("/passkeys", by, created).await, (204, Value::Null));
        authenticator
    }

    async fn events(&self, by: &Credential, event: &str) -> Vec<Value> {
        let of = |entry: &Value| entry["event"] == event;
        self.log(by).await.into_iter().filter(of).map(|entry| entry["result"].clone()).collect()
    }
}

fn error(status: u16, code: &str) -> Reply {
    (status, json!({ "code": code }))
}

/// > Enable 2FA for your account under Account → Security → Two-Factor Authentication. TOTP — any
/// > authenticator app (Google Authenticator, Authy, 1Password)
async fn an_authenticator_app_is_enabled_by_its_first_code_and_required_afterwards(
    backend: &Backend,
) {
    let lumio = Deployment::new(backend).server();
    let ada = lumio.sign_up(ADA).await;
    assert_eq!(
        lumio.finish("/totp", &ada, json!({ "code": "123456" })).await.0,
        409,
        "not started"
    );
    let app = App::scan(&lumio.start("/totp", &ada).await);
    let far = app.code_at(500);
    assert_eq!(lumio.finish("/totp", &ada, far.clone()).await, error(400, "wrong_code"));
    let elsewhere = lumio.sign_in(ADA).await;
    lumio.get(KEYS, &elsewhere).await;
    assert_eq!(lumio.finish("/totp", &ada, app.code_at(-1)).await.0, 204);
    lumio.get(KEYS, &ada).await;

    let (status, asked) = lumio.call(Method::GET, KEYS, &elsewhere, Value::Null).await;
    assert_eq!((status, asked), error(401, "confirm_by_second_factor"));
    assert_eq!(lumio.enter_code(&elsewhere, app.code_at(-1)).await, error(400, "used_code"));
    assert_eq!(lumio.enter_code(&elsewhere, far).await, error(400, "wrong_code"));
    assert_eq!(lumio.enter_code(&elsewhere, app.code_at(0)).await.0, 204);
    lumio.get(KEYS, &elsewhere).await;
    assert_eq!(lumio.events(&ada, "two_factor.totp_enabled").await, ["success"]);
    assert_eq!(lumio.events(&ada, "second_factor.accepted").await, ["success"; 2]);
    let refusals = lumio.events(&ada, "second_factor.refused").await;
    assert!(!refusals.is_empty() && refusals.iter().all(|result| result == "failure"));
}

/// Not on the page: the number of attempts is limited, and the limit ends without locking out the account's owner.
async fn codes_cannot_be_brute_forced(backend: &Backend) {
    let lumio = Deployment::new(backend).server_at("2026-02-09T12:00:00.5Z");
    let app = lumio.enable_app(&lumio.sign_up(ADA).await).await;
    let attacker = lumio.sign_in(ADA).await;
    for n in 100..105 {
        assert_eq!(lumio.enter_code(&attacker, app.code_at(n)).await, error(400, "wrong_code"));
    }
    for code in [app.code_at(0), app.code_at(106)] {
        assert_eq!(lumio.enter_code(&attacker, code).await, error(429, "too_many_codes"));
    }
    let path = "/account/security/two-factor/code";
    let response = lumio.send(Method::POST, path, &attacker, &app.code_at(0)).await;
    assert_eq!(response.headers()["retry-after"], "900", "and no moment too early");
}

/// > 2FA is required for all accounts that have published paid extensions.
async fn publishers_of_paid_extensions_need_a_recent_second_factor_to_change_keys(
    backend: &Backend,
) {
    let deployment = Deployment::new(backend);
    let lumio = deployment.server();
    let ada = lumio.sign_up(ADA).await;
    let created = lumio.create(&ada, "ci").await;
    let key = present(&created);
    let publish = async |by: &Credential, price: u32| {
        lumio.post("/extensions/weather/publish", by, json!({ "price": price })).await.0
    };
    for by in [&ada, &key] {
        assert_eq!((publish(by, 0).await, publish(by, 5).await), (200, 403), "by {}", by.0);
    }
    let app = lumio.enable_app(&ada).await;
    invite(&lumio, &ada, "eve@example.com", "member").await;
    assert_eq!(publish(&key, 5).await, 200);

    let path = format!("{KEYS}/{}", created["id"].as_str().unwrap());
    let rotate = format!("{path}/rotate");
    lumio.create(&ada, "with a fresh one").await;
    let later = deployment.server_at("2026-02-09T12:15:01Z");
    for (path, body) in [(KEYS, json!({ "name": "x" })), (rotate.as_str(), json!({}))] {
        let (status, response) = later.post(path, &ada, body).await;
        assert_eq!((status, &response["code"]), (403, &json!("second_factor_required")), "{path}");
        assert_eq!(response["maxAge"], 900, "{path}");
    }
    // A team's members are as sensitive: a new one could create keys.
    let second_owner = json!({ "email": BOB, "role": "owner" });
    let invited = later.post(TEAM, &ada, second_owner.clone()).await;
    assert_eq!(invited, error(403, "second_factor_required"));
    assert_eq!(change_role(&later, &ada, "eve@example.com", "owner").await, 403);
    assert_eq!(remove(&later, &ada, "eve@example.com").await, 403);
    let listed = later.get(KEYS, &ada).await;
    assert_eq!(listed["keys"].as_array().unwrap().len(), 2, "nothing else changed");
    assert_eq!(later.deploy(&key).await, 200, "keys themselves go on working");
    assert_eq!(later.enter_code(&ada, app.code_at(30)).await.0, 204);
    later.create(&ada, "confirmed").await;
    assert_eq!(later.post(TEAM, &ada, second_owner).await.0, 201);
    let bob = later.sign_in(BOB).await;
    let (status, response) = later.post(KEYS, &bob, json!({ "name": "x" })).await;
    assert_eq!((status, &response["code"]), (403, &json!("second_factor_required")));
    let (status, rotated) = later.post(&rotate, &ada, json!({})).await;
    assert_eq!(status, 200);
    assert_eq!(later.deploy(&present(&rotated)).await, 200);
}

/// > Passkey — hardware security key or platform authenticator
async fn a_passkey_is_a_second_factor(backend: &Backend) {
    let lumio = Deployment::new(backend).server();
    let ada = lumio.sign_up(ADA).await;
    let nothing = lumio.two_factor(Method::POST, "/passkey", &ada, Value::Null).await;
    assert_eq!(nothing, error(404, "no_passkey"));
    let mut authenticator = lumio.add_passkey(&ada).await;
    lumio.get(KEYS, &ada).await;
    for _ in 0..2 {
        let elsewhere = lumio.sign_in(ADA).await;
        let (status, asked) = lumio.call(Method::GET, KEYS, &elsewhere, Value::Null).await;
        assert_eq!((status, asked), error(401, "confirm_by_second_factor"));
        let assertion = authenticator.get(lumio.start("/passkey", &elsewhere).await);
        assert_eq!(lumio.finish("/passkey", &elsewhere, assertion).await, (204, Value::Null));
        lumio.get(KEYS, &elsewhere).await;
    }
    assert_eq!(lumio.events(&ada, "two_factor.passkey_added").await, ["success"]);
    assert_eq!(lumio.events(&ada, "second_factor.accepted").await, ["success"; 2]);
    assert!(lumio.events(&ada, "second_factor.refused").await.is_empty());
}

/// Not on the page: an assertion is valid once, for the session that requested it, and from the product's origin.
async fn a_replayed_assertion_a_wrong_origin_and_a_wrong_passkey_are_rejected(backend: &Backend) {
    let lumio = Deployment::new(backend).server();
    let ada = lumio.sign_up(ADA).await;
    let not_accepted = error(400, "passkey_not_accepted");
    let phishing = |mut authenticator: Authenticator| {
        authenticator.1 = "http://localhost:1".parse().unwrap();
        authenticator
    };
    let mut fake = phishing(Authenticator::of(&lumio));
    let created = fake.create(lumio.start("/passkeys", &ada).await);
    assert_eq!(lumio.finish("/passkeys", &ada, created).await, not_accepted, "a wrong origin");
    let mut authenticator = Authenticator::of(&lumio);
    let created = authenticator.create(lumio.start("/passkeys", &ada).await);
    assert_eq!(lumio.finish("/passkeys", &ada, created.clone()).await.0, 204);
    assert_eq!(lumio.finish("/passkeys", &ada, created.clone()).await, not_accepted, "a replay");
    let _ = lumio.start("/passkeys", &ada).await;
    assert_eq!(
        lumio.finish("/passkeys", &ada, created).await,
        not_accepted,
        "to another challenge"
    );

    let attacker = lumio.sign_in(ADA).await;
    let assertion = authenticator.get(lumio.start("/passkey", &ada).await);
    assert_eq!(
        lumio.finish("/passkey", &attacker, assertion.clone()).await,
        not_accepted,
        "nothing asked"
    );
    assert_eq!(lumio.finish("/passkey", &ada, assertion.clone()).await.0, 204);
    assert_eq!(lumio.finish("/passkey", &ada, assertion.clone()).await, not_accepted, "a replay");
    let asked = lumio.start("/passkey", &attacker).await;
    assert_eq!(
        lumio.finish("/passkey", &attacker, assertion).await,
        not_accepted,
        "another challenge"
    );
    assert_eq!(lumio.call(Method::GET, KEYS, &attacker, Value::Null).await.0, 401);
    let assertion = authenticator.get(asked);
    assert_eq!(
        lumio.finish("/passkey", &attacker, assertion).await,
        not_accepted,
        "each challenge allows one attempt"
    );

    let [asked, asked_later] =
        [lumio.start("/passkey", &attacker).await, lumio.start("/passkey", &ada).await];
    let [assertion, later] = [asked, asked_later].map(|asked| authenticator.get(asked));
    assert_eq!(lumio.finish("/passkey", &ada, later).await.0, 204);
    let copied = lumio.finish("/passkey", &attacker, assertion).await;
    assert_eq!(copied, not_accepted, "the counter did not increase");

    let mut authenticator = phishing(authenticator);
    let assertion = authenticator.get(lumio.start("/passkey", &attacker).await);
    assert_eq!(
        lumio.finish("/passkey", &attacker, assertion).await,
        not_accepted,
        "a wrong origin"
    );
    assert_eq!(lumio.call(Method::GET, KEYS, &attacker, Value::Null).await.0, 401);

    // Another user's passkey with the credential id of Ada's.
    let bob = lumio.sign_up(BOB).await;
    let mut bobs_passkey = lumio.add_passkey(&bob).await;
    let to_him = lumio.start("/passkey", &bob).await["publicKey"]["allowCredentials"].clone();
    let mut asked = lumio.start("/passkey", &attacker).await;
    asked["publicKey"]["allowCredentials"] = to_him;
    assert_eq!(lumio.finish("/passkey", &attacker, bobs_passkey.get(asked)).await, not_accepted);
    assert_eq!(lumio.call(Method::GET, KEYS, &attacker, Value::Null).await.0, 401);
}

/// Not on the page: a passkey must verify its user, by fingerprint or PIN.
async fn a_passkey_without_user_verification_is_rejected(backend: &Backend) {
    let lumio = Deployment::new(backend).server();
    let ada = lumio.sign_up(ADA).await;
    let not_accepted = error(400, "passkey_not_accepted");
    let nobody_asked = json!("discouraged");
    let mut asked = lumio.start("/passkeys", &ada).await;
    asked["publicKey"]["authenticatorSelection"]["userVerification"] = nobody_asked.clone();
    let created = Authenticator::of(&lumio).create(asked);
    assert_eq!(lumio.finish("/passkeys", &ada, created).await, not_accepted);
    let mut authenticator = lumio.add_passkey(&ada).await;
    let attacker = lumio.sign_in(ADA).await;
    let mut asked = lumio.start("/passkey", &attacker).await;
    asked["publicKey"]["userVerification"] = nobody_asked;
    assert_eq!(lumio.finish("/passkey", &attacker, authenticator.get(asked)).await, not_accepted);
    let assertion = authenticator.get(lumio.start("/passkey", &attacker).await);
    assert_eq!(lumio.finish("/passkey", &attacker, assertion).await.0, 204, "the original session");
}

/// Not on the page: a stolen session cannot add another factor.
async fn adding_a_factor_needs_a_recent_existing_factor(backend: &Backend) {
    let lumio = Deployment::new(backend).server();
    let ada = lumio.sign_up(ADA).await;
    let attacker = lumio.sign_in(ADA).await;
    let attacker_app = App::scan(&lumio.start("/totp", &attacker).await);
    let mut authenticator = lumio.add_passkey(&ada).await;
    let late = lumio.finish("/totp", &attacker, attacker_app.code_at(-1)).await;
    assert_eq!(
        late,
        error(403, "second_factor_required"),
        "started before the first factor was added"
    );
    for path in ["/totp", "/passkeys"] {
        let (status, response) = lumio.two_factor(Method::POST, path, &attacker, Value::Null).await;
        assert_eq!((status, response), error(403, "second_factor_required"), "{path}");
    }
    let app = lumio.enable_app(&ada).await;
    let elsewhere = lumio.sign_in(ADA).await;
    assert_eq!(
        lumio.enter_code(&elsewhere, app.code_at(0)).await.0,
        204,
        "either factor is accepted"
    );
    let assertion = authenticator.get(lumio.start("/passkey", &attacker).await);
    assert_eq!(lumio.finish("/passkey", &attacker, assertion).await.0, 204);
}

on_each_backend!([sqlite, postgres_and_redis] {
    an_authenticator_app_is_enabled_by_its_first_code_and_required_afterwards,
    codes_cannot_be_brute_forced,
    publishers_of_paid_extensions_need_a_recent_second_factor_to_change_keys,
    a_passkey_is_a_second_factor,
    a_replayed_assertion_a_wrong_origin_and_a_wrong_passkey_are_rejected,
    a_passkey_without_user_verification_is_rejected,
    adding_a_factor_needs_a_recent_existing_factor,
});
