//! Software statements: what a publisher says of his software, signed (RFC 7591, section 2.3).

use std::sync::Arc;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use keyward::Timestamp;
use p256::{
    ecdsa::{Signature, VerifyingKey, signature::Verifier},
    pkcs8::{DecodePublicKey, spki},
};
use serde_json::{Map, Value};

use crate::refused::Refused;

/// The one publisher whose software may register with a statement, if there is one.
#[derive(Clone, Default)]
pub struct Publisher(Option<Arc<VerifyingKey>>);

impl Publisher {
    /// Reads his public key.
    pub fn new(pem: &str) -> Result<Self, spki::Error> {
        Ok(Self(Some(Arc::new(VerifyingKey::from_public_key_pem(pem)?))))
    }

    /// The claims of a statement that is his, is good now, and is meant for `audience` if for anyone.
    pub fn claims(
        &self,
        statement: &str,
        audience: &str,
        now: Timestamp,
    ) -> Result<Map<String, Value>, Refused> {
        let mut parts = statement.split('.');
        let [Some(head), Some(body), Some(signature), None] = [(); 4].map(|()| parts.next()) else {
            return Err(Refused::InvalidStatement("it is not a JWT in its compact form"));
        };
        let object =
            |part| serde_json::from_slice::<Map<String, Value>>(&BASE64.decode(part).ok()?).ok();
        let (Some(head), Some(claims)) = (object(head).zip(object(body))).unzip() else {
            return Err(Refused::InvalidStatement("its parts are not JSON objects in base64url"));
        };
        // Nobody but the publisher's key says what its algorithm is.
        if head.get("alg").and_then(Value::as_str) != Some("ES256") || head.contains_key("crit") {
            return Err(Refused::InvalidStatement("sign it by ES256, without critical extensions"));
        }
        let issuer = claims.get("iss").and_then(Value::as_str);
        let issuer = issuer.ok_or(Refused::InvalidStatement("it does not say who issued it"))?;
        let Some(key) = self.0.as_ref().filter(|_| issuer == PUBLISHER) else {
            return Err(Refused::UnapprovedStatement("its issuer is not known here"));
        };
        let signed = &statement.as_bytes()[..statement.len() - signature.len() - 1];
        let signature = BASE64.decode(signature).ok();
        let signature = signature.and_then(|bytes| Signature::from_slice(&bytes).ok());
        if signature.is_none_or(|signature| key.verify(signed, &signature).is_err()) {
            return Err(Refused::InvalidStatement("its signature is not that of its issuer"));
        }
        if !is_timely(&claims, now) || !is_meant_for(&claims, audience) {
            return Err(Refused::InvalidStatement("it is not for this time or this server"));
        }
        Ok(claims)
    }
}

fn is_timely(claims: &Map<String, Value>, now: Timestamp) -> bool {
    let now = now.as_unix_micros() as f64 / 1e6;
    let holds = |name: &str, rule: fn(f64, f64) -> bool| {
        claims.get(name).is_none_or(|at| at.as_f64().is_some_and(|at| rule(now, at)))
    };
    holds("exp", |now, at| now < at) && holds("nbf", |now, at| now >= at)
}

fn is_meant_for(claims: &Map<String, Value>, audience: &str) -> bool {
    match claims.get("aud") {
        None => true,
        Some(Value::Array(several)) => several.iter().any(|one| one == audience),
        Some(one) => one == audience,
    }
}

const PUBLISHER: &str = "https://software.example";
