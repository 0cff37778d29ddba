//! Software statements. Quotations are from RFC 7591.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use p256::{
    ecdsa::{Signature, SigningKey, signature::Signer},
    pkcs8::{EncodePublicKey, LineEnding},
};
use serde_json::{Value, json};

use super::Lumo;
use crate::products::backend::{Backend, on_each_backend};

/// The key of the publisher that the test servers trust.
fn publisher() -> SigningKey {
    SigningKey::from_slice(&[7; 32]).unwrap()
}

pub fn public_key() -> String {
    let key = p256::PublicKey::from(publisher().verifying_key());
    key.to_public_key_pem(LineEnding::LF).unwrap()
}

fn signed_by(key: &SigningKey, head: &Value, claims: &Value) -> String {
    let part = |json: &Value| BASE64.encode(json.to_string());
    let text = format!("{}.{}", part(head), part(claims));
    let signature: Signature = key.sign(text.as_bytes());
    format!("{text}.{}", BASE64.encode(signature.to_bytes()))
}

fn statement(claims: &Value) -> String {
    signed_by(&publisher(), &json!({ "alg": "ES256", "typ": "JWT" }), claims)
}

fn claims() -> Value {
    json!({
        "iss": "https://software.example",
        "software_id": "4NRB1-0XZABZI9E6-5SM3R",
        "client_name": "Example Statement-based Client",
        "client_uri": "https://client.example.net/",
    })
}

/// > client metadata values conveyed in the software statement MUST take precedence over those conveyed using
/// > plain JSON elements. (3.1.1)
/// > If a software statement was used as part of the registration, its value MUST be returned unmodified in
/// > the response along with other metadata using the member name "software_statement". Client metadata
/// > elements used from the software statement MUST also be returned directly as top-level client metadata
/// > values in the registration response (3.2.1)
async fn the_claims_of_a_trusted_statement_take_precedence_and_are_returned(backend: &Backend) {
    let lumo = Lumo::start(backend);
    let key = lumo.key("ada@acme", "CI/CD pipeline").await;
    let mut claims_sent = claims();
    claims_sent["exp"] = json!(4_102_444_800.5);
    claims_sent["aud"] = json!(["https://other.example", format!("{}/t/acme", lumo.server.url())]);
    let statement = statement(&claims_sent);
    let body = json!({
        "redirect_uris": ["https://client.example.net/callback"],
        "client_name": "Something else", "scope": "profile", "software_statement": statement,
    });
    let created = lumo.register("acme", &key, &body).await;
    assert_eq!(created.status, 201, "{}", created.body);
    assert_eq!(created.body["software_statement"], statement);
    for name in ["software_id", "client_name", "client_uri"] {
        assert_eq!(created.body[name], claims_sent[name]);
    }
    assert_eq!(created.body["scope"], "profile", "a mixture of both is also possible");
    for not_metadata in ["iss", "aud", "exp"] {
        assert_eq!(created.body.get(not_metadata), None);
    }
    assert_eq!(lumo.clients("acme", &key).await[0]["software_statement"], statement);
}

/// > The software statement MUST be digitally signed or MACed … and MUST contain an "iss" (issuer) claim (2.3)
/// > invalid_software_statement: The software statement presented is invalid.
/// > unapproved_software_statement: The software statement presented is not approved for use by this
/// > authorization server. (3.2.2)
async fn only_statements_of_the_trusted_publisher_are_accepted(backend: &Backend) {
    let lumo = Lumo::start(backend);
    let key = lumo.key("ada@acme", "CI/CD pipeline").await;
    let with = |name: &str, value: Value| {
        let mut claims_sent = claims();
        claims_sent[name] = value;
        claims_sent
    };
    let es256 = json!({ "alg": "ES256" });
    let good = statement(&claims());
    let unsigned = good.rsplit_once('.').unwrap().0;
    let stranger = SigningKey::from_slice(&[8; 32]).unwrap();
    let swapped = {
        let other = statement(&with("client_name", json!("Bank")));
        let (body, signature) =
            (other.rsplit_once('.').unwrap().0, good.rsplit_once('.').unwrap().1);
        format!("{body}.{signature}")
    };
    let under = |head: Value| json!(signed_by(&publisher(), &head, &claims()));
    let other_issuer = with("iss", json!("https://stranger.example"));
    let (invalid, unapproved) = ("invalid_software_statement", "unapproved_software_statement");
    for (statement, expected) in [
        (json!(7), invalid),
        (json!({ "iss": "https://software.example" }), invalid),
        (json!(""), invalid),
        (json!(".."), invalid),
        (json!("..."), invalid),
        (json!("a.b.c"), invalid),
        (json!("\u{e9}.\u{e9}.\u{e9}"), invalid),
        (json!(unsigned), invalid),
        (json!(format!("{unsigned}.")), invalid),
        (json!(format!("{good}.{good}")), invalid),
        (json!(format!("{good}=")), invalid),
        (json!(format!(" {good}")), invalid),
        (json!(swapped), invalid),
        (json!(signed_by(&stranger, &es256, &claims())), invalid),
        (under(json!({})), invalid),
        (under(json!({ "alg": "none" })), invalid),
        (under(json!({ "alg": "HS256" })), invalid),
        (under(json!({ "alg": "es256" })), invalid),
        (under(json!({ "alg": "ES256", "crit": ["exp"], "exp": 1 })), invalid),
        (json!(self::statement(&json!({ "client_name": "x" }))), invalid),
        (json!(self::statement(&json!([]))), invalid),
        (json!(self::statement(&with("iss", json!(7)))), invalid),
        (json!(self::statement(&with("exp", json!(1)))), invalid),
        (json!(self::statement(&with("exp", json!("tomorrow")))), invalid),
        (json!(self::statement(&with("nbf", json!(4_102_444_800_i64)))), invalid),
        (json!(self::statement(&with("aud", json!("https://other.example")))), invalid),
        (
            json!(self::statement(&with("aud", json!(format!("{}/t/globex", lumo.server.url()))))),
            invalid,
        ),
        (json!(self::statement(&other_issuer)), unapproved),
        (json!(signed_by(&stranger, &es256, &other_issuer)), unapproved),
    ] {
        let body = json!({ "redirect_uris": ["https://client.example.net/cb"], "software_statement": statement });
        let refused = lumo.register("acme", &key, &body).await;
        assert_eq!(refused.error(), expected, "{statement}");
    }
    assert_eq!(lumo.clients("acme", &key).await, [Value::Null; 0]);
}

/// Signed metadata is validated like any other.
async fn invalid_metadata_in_a_valid_statement_is_rejected(backend: &Backend) {
    let lumo = Lumo::start(backend);
    let key = lumo.key("ada@acme", "CI/CD pipeline").await;
    for (name, value, expected) in [
        ("redirect_uris", json!(["http://evil.example/"]), "invalid_redirect_uri"),
        ("redirect_uris", Value::Null, "invalid_redirect_uri"),
        ("logo_uri", json!("javascript:alert(1)"), "invalid_client_metadata"),
        ("jwks_uri", json!("https://client.example.net/jwks"), "invalid_client_metadata"),
    ] {
        let mut claims_sent = claims();
        claims_sent[name] = value;
        let body = json!({
            "redirect_uris": ["https://client.example.net/cb"], "jwks": { "keys": [] },
            "software_statement": statement(&claims_sent),
        });
        assert_eq!(lumo.register("acme", &key, &body).await.error(), expected, "{claims_sent}");
    }
}

on_each_backend!([sqlite, postgres_and_redis] {
    the_claims_of_a_trusted_statement_take_precedence_and_are_returned,
    only_statements_of_the_trusted_publisher_are_accepted,
    invalid_metadata_in_a_valid_statement_is_rejected,
});
