//! Two-factor authentication: apps and passkeys.

use keyward::totp::TotpSecret;
use reqwest::{Method, Url};
use serde_json::{Value, json};
use webauthn_authenticator_rs::{WebauthnAuthenticator, softpasskey::SoftPasskey};

use super::{ADA, BOB, KEYS, Lumio, Pass, Reply, Site, with};
use crate::products::place::{Place, in_each_place};
use crate::totp::code;

/// What an authenticator app has that scanned the address.
struct App(TotpSecret);

impl App {
    fn scan(setup: &Value) -> Self {
        let uri = setup["uri"].as_str().unwrap();
        assert!(uri.starts_with("otpauth://totp/Lumio:ada%40example.com?secret="), "{uri}");
        assert!(setup["qr"].as_str().unwrap().starts_with("<svg "));
        let secret = uri.split(['=', '&']).nth(1).unwrap();
        Self(TotpSecret::from_base32(secret).unwrap())
    }

    /// What it shows on the server's stopped clock, or so many steps from there.
    fn shows(&self, steps: i64) -> Value {
        let now = "2026-02-09T12:00:00Z".parse().unwrap();
        json!({ "code": code(&self.0, now, steps) })
    }
}

/// An authenticator that makes passkeys, and a browser that shows it a page of this origin.
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
    async fn two_factor(&self, method: Method, path: &str, by: &Pass, body: Value) -> Reply {
        self.call(method, &format!("/account/security/two-factor{path}"), by, body).await
    }

    /// What the server asks of an app or an authenticator.
    async fn asks(&self, path: &str, by: &Pass) -> Value {
        let (status, asked) = self.two_factor(Method::POST, path, by, Value::Null).await;
        assert_eq!(status, 200, "{path}: {asked}");
        asked
    }

    /// What it says to their answer.
    async fn told(&self, path: &str, by: &Pass, answer: Value) -> Reply {
        self.two_factor(Method::PUT, path, by, answer).await
    }

    async fn types(&self, by: &Pass, code: Value) -> Reply {
        self.two_factor(Method::POST, "/code", by, code).await
    }

    async fn enable_app(&self, by: &Pass) -> App {
        let app = App::scan(&self.asks("/totp", by).await);
        assert_eq!(self.told("/totp", by, app.shows(-1)).await.0, 204);
        app
    }

    async fn add_passkey(&self, by: &Pass) -> Authenticator {
        let mut authenticator = Authenticator::of(self);
        let made = authenticator.create(self.asks("/passkeys", by).await);
        assert_eq!(self.told("/passkeys", by, made).await, (204, Value::Null));
        authenticator
    }

    async fn events(&self, by: &Pass, event: &str) -> Vec<Value> {
        let of = |entry: &Value| entry["event"] == event;
        self.log(by).await.into_iter().filter(of).map(|entry| entry["result"].clone()).collect()
    }
}

fn refused(status: u16, code: &str) -> Reply {
    (status, json!({ "code": code }))
}

/// > Enable 2FA for your account under Account → Security → Two-Factor Authentication. TOTP — any
/// > authenticator app (Google Authenticator, Authy, 1Password)
async fn an_authenticator_app_is_enabled_by_its_first_code_and_required_afterwards(place: &Place) {
    let lumio = Site::new(place).now();
    let ada = lumio.founder(ADA).await;
    assert_eq!(lumio.told("/totp", &ada, json!({ "code": "123456" })).await.0, 409, "not begun");
    let app = App::scan(&lumio.asks("/totp", &ada).await);
    let far = app.shows(500);
    assert_eq!(lumio.told("/totp", &ada, far.clone()).await, refused(400, "wrong_code"));
    let elsewhere = lumio.sign_in(ADA).await;
    lumio.get(KEYS, &elsewhere).await;
    assert_eq!(lumio.told("/totp", &ada, app.shows(-1)).await.0, 204);
    lumio.get(KEYS, &ada).await;

    let (status, asked) = lumio.call(Method::GET, KEYS, &elsewhere, Value::Null).await;
    assert_eq!((status, asked), refused(401, "confirm_by_second_factor"));
    assert_eq!(lumio.types(&elsewhere, app.shows(-1)).await, refused(400, "used_code"));
    assert_eq!(lumio.types(&elsewhere, far).await, refused(400, "wrong_code"));
    assert_eq!(lumio.types(&elsewhere, app.shows(0)).await.0, 204);
    lumio.get(KEYS, &elsewhere).await;
    assert_eq!(lumio.events(&ada, "two_factor.totp_enabled").await, ["success"]);
    assert_eq!(lumio.events(&ada, "second_factor.accepted").await, ["success"; 2]);
    let refusals = lumio.events(&ada, "second_factor.refused").await;
    assert!(!refusals.is_empty() && refusals.iter().all(|result| result == "failure"));
}

/// Beyond the page: a million codes are not tried out, and the owner of the account is not asked for
/// patience longer than that takes.
async fn codes_cannot_be_brute_forced(place: &Place) {
    let lumio = Site::new(place).at_time("2026-02-09T12:00:00.5Z");
    let app = lumio.enable_app(&lumio.founder(ADA).await).await;
    let thief = lumio.sign_in(ADA).await;
    for n in 100..105 {
        assert_eq!(lumio.types(&thief, app.shows(n)).await, refused(400, "wrong_code"));
    }
    for code in [app.shows(0), app.shows(106)] {
        assert_eq!(lumio.types(&thief, code).await, refused(429, "too_many_codes"));
    }
    let path = "/account/security/two-factor/code";
    let told = lumio.send(Method::POST, path, &thief, &app.shows(0)).await;
    assert_eq!(told.headers()["retry-after"], "900", "and no moment too early");
}

/// > 2FA is required for all accounts that have published paid extensions.
async fn publishers_of_paid_extensions_need_a_recent_second_factor_to_change_keys(place: &Place) {
    let site = Site::new(place);
    let lumio = site.now();
    let ada = lumio.founder(ADA).await;
    let made = lumio.create(&ada, "ci").await;
    let key = with(&made);
    let publish = async |by: &Pass, price: u32| {
        lumio.post("/extensions/weather/publish", by, json!({ "price": price })).await.0
    };
    for by in [&ada, &key] {
        assert_eq!((publish(by, 0).await, publish(by, 5).await), (200, 403), "by {}", by.0);
    }
    let app = lumio.enable_app(&ada).await;
    assert_eq!(publish(&key, 5).await, 200);

    let path = format!("{KEYS}/{}", made["id"].as_str().unwrap());
    let rotate = format!("{path}/rotate");
    lumio.create(&ada, "with a fresh one").await;
    let later = site.at_time("2026-02-09T12:15:01Z");
    for (path, body) in [(KEYS, json!({ "name": "x" })), (rotate.as_str(), json!({}))] {
        let (status, told) = later.post(path, &ada, body).await;
        assert_eq!((status, &told["code"]), (403, &json!("second_factor_required")), "{path}");
        assert_eq!(told["maxAge"], 900, "{path}");
    }
    let listed = later.get(KEYS, &ada).await;
    assert_eq!(listed["keys"].as_array().unwrap().len(), 2, "all else is as it was");
    assert_eq!(later.deploy(&key).await, 200, "keys themselves go on working");
    assert_eq!(later.types(&ada, app.shows(30)).await.0, 204);
    later.create(&ada, "confirmed").await;
    let (status, rotated) = later.post(&rotate, &ada, json!({})).await;
    assert_eq!(status, 200);
    assert_eq!(later.deploy(&with(&rotated)).await, 200);
}

/// > Passkey — hardware security key or platform authenticator
async fn a_passkey_is_a_second_factor(place: &Place) {
    let lumio = Site::new(place).now();
    let ada = lumio.founder(ADA).await;
    let nothing = lumio.two_factor(Method::POST, "/passkey", &ada, Value::Null).await;
    assert_eq!(nothing, refused(404, "no_passkey"));
    let mut authenticator = lumio.add_passkey(&ada).await;
    lumio.get(KEYS, &ada).await;
    for _ in 0..2 {
        let elsewhere = lumio.sign_in(ADA).await;
        let (status, asked) = lumio.call(Method::GET, KEYS, &elsewhere, Value::Null).await;
        assert_eq!((status, asked), refused(401, "confirm_by_second_factor"));
        let assertion = authenticator.get(lumio.asks("/passkey", &elsewhere).await);
        assert_eq!(lumio.told("/passkey", &elsewhere, assertion).await, (204, Value::Null));
        lumio.get(KEYS, &elsewhere).await;
    }
    assert_eq!(lumio.events(&ada, "two_factor.passkey_added").await, ["success"]);
    assert_eq!(lumio.events(&ada, "second_factor.accepted").await, ["success"; 2]);
    assert!(lumio.events(&ada, "second_factor.refused").await.is_empty());
}

/// Beyond the page: what a passkey has answered is good once, for the session that asked, and on the
/// pages of the product.
async fn a_replayed_assertion_a_wrong_origin_and_a_wrong_passkey_are_rejected(place: &Place) {
    let lumio = Site::new(place).now();
    let ada = lumio.founder(ADA).await;
    let not_accepted = refused(400, "passkey_not_accepted");
    let phishing = |mut authenticator: Authenticator| {
        authenticator.1 = "http://localhost:1".parse().unwrap();
        authenticator
    };
    let mut fake = phishing(Authenticator::of(&lumio));
    let made = fake.create(lumio.asks("/passkeys", &ada).await);
    assert_eq!(lumio.told("/passkeys", &ada, made).await, not_accepted, "a wrong origin");
    let mut authenticator = Authenticator::of(&lumio);
    let made = authenticator.create(lumio.asks("/passkeys", &ada).await);
    assert_eq!(lumio.told("/passkeys", &ada, made.clone()).await.0, 204);
    assert_eq!(lumio.told("/passkeys", &ada, made.clone()).await, not_accepted, "a replay");
    let _ = lumio.asks("/passkeys", &ada).await;
    assert_eq!(lumio.told("/passkeys", &ada, made).await, not_accepted, "to another challenge");

    let thief = lumio.sign_in(ADA).await;
    let assertion = authenticator.get(lumio.asks("/passkey", &ada).await);
    assert_eq!(
        lumio.told("/passkey", &thief, assertion.clone()).await,
        not_accepted,
        "nothing asked"
    );
    assert_eq!(lumio.told("/passkey", &ada, assertion.clone()).await.0, 204);
    assert_eq!(lumio.told("/passkey", &ada, assertion.clone()).await, not_accepted, "a replay");
    let asked = lumio.asks("/passkey", &thief).await;
    assert_eq!(lumio.told("/passkey", &thief, assertion).await, not_accepted, "another challenge");
    assert_eq!(lumio.call(Method::GET, KEYS, &thief, Value::Null).await.0, 401);
    let assertion = authenticator.get(asked);
    assert_eq!(lumio.told("/passkey", &thief, assertion).await, not_accepted, "one try each");

    let [asked, asked_later] =
        [lumio.asks("/passkey", &thief).await, lumio.asks("/passkey", &ada).await];
    let [assertion, later] = [asked, asked_later].map(|asked| authenticator.get(asked));
    assert_eq!(lumio.told("/passkey", &ada, later).await.0, 204);
    let copied = lumio.told("/passkey", &thief, assertion).await;
    assert_eq!(copied, not_accepted, "counted behind what was accepted");

    let mut authenticator = phishing(authenticator);
    let assertion = authenticator.get(lumio.asks("/passkey", &thief).await);
    assert_eq!(lumio.told("/passkey", &thief, assertion).await, not_accepted, "a wrong origin");
    assert_eq!(lumio.call(Method::GET, KEYS, &thief, Value::Null).await.0, 401);

    // Somebody else's passkey, made to look like hers.
    let bob = lumio.founder(BOB).await;
    let mut his = lumio.add_passkey(&bob).await;
    let to_him = lumio.asks("/passkey", &bob).await["publicKey"]["allowCredentials"].clone();
    let mut asked = lumio.asks("/passkey", &thief).await;
    asked["publicKey"]["allowCredentials"] = to_him;
    assert_eq!(lumio.told("/passkey", &thief, his.get(asked)).await, not_accepted);
    assert_eq!(lumio.call(Method::GET, KEYS, &thief, Value::Null).await.0, 401);
}

/// Beyond the page: a passkey tells that its holder was there, by a finger or a PIN.
async fn a_passkey_without_user_verification_is_rejected(place: &Place) {
    let lumio = Site::new(place).now();
    let ada = lumio.founder(ADA).await;
    let not_accepted = refused(400, "passkey_not_accepted");
    let nobody_asked = json!("discouraged");
    let mut asked = lumio.asks("/passkeys", &ada).await;
    asked["publicKey"]["authenticatorSelection"]["userVerification"] = nobody_asked.clone();
    let made = Authenticator::of(&lumio).create(asked);
    assert_eq!(lumio.told("/passkeys", &ada, made).await, not_accepted);
    let mut authenticator = lumio.add_passkey(&ada).await;
    let thief = lumio.sign_in(ADA).await;
    let mut asked = lumio.asks("/passkey", &thief).await;
    asked["publicKey"]["userVerification"] = nobody_asked;
    assert_eq!(lumio.told("/passkey", &thief, authenticator.get(asked)).await, not_accepted);
    let assertion = authenticator.get(lumio.asks("/passkey", &thief).await);
    assert_eq!(lumio.told("/passkey", &thief, assertion).await.0, 204, "where it was");
}

/// Beyond the page: who has stolen a session does not set up a factor of his own beside hers.
async fn adding_a_factor_needs_a_recent_existing_factor(place: &Place) {
    let lumio = Site::new(place).now();
    let ada = lumio.founder(ADA).await;
    let thief = lumio.sign_in(ADA).await;
    let his = App::scan(&lumio.asks("/totp", &thief).await);
    let mut authenticator = lumio.add_passkey(&ada).await;
    let late = lumio.told("/totp", &thief, his.shows(-1)).await;
    assert_eq!(late, refused(403, "second_factor_required"), "begun before there was one");
    for path in ["/totp", "/passkeys"] {
        let (status, told) = lumio.two_factor(Method::POST, path, &thief, Value::Null).await;
        assert_eq!((status, told), refused(403, "second_factor_required"), "{path}");
    }
    let app = lumio.enable_app(&ada).await;
    let elsewhere = lumio.sign_in(ADA).await;
    assert_eq!(lumio.types(&elsewhere, app.shows(0)).await.0, 204, "either of them will do");
    let assertion = authenticator.get(lumio.asks("/passkey", &thief).await);
    assert_eq!(lumio.told("/passkey", &thief, assertion).await.0, 204);
}

in_each_place!([sqlite, postgres_and_redis] {
    an_authenticator_app_is_enabled_by_its_first_code_and_required_afterwards,
    codes_cannot_be_brute_forced,
    publishers_of_paid_extensions_need_a_recent_second_factor_to_change_keys,
    a_passkey_is_a_second_factor,
    a_replayed_assertion_a_wrong_origin_and_a_wrong_passkey_are_rejected,
    a_passkey_without_user_verification_is_rejected,
    adding_a_factor_needs_a_recent_existing_factor,
});
