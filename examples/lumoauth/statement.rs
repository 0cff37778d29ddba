//! Software statements: signed client metadata of a software publisher (RFC 7591, section 2.3).

use std::sync::Arc;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use keyward::Timestamp;
use p256::{
    ecdsa::{Signature, VerifyingKey, signature::Verifier},
    pkcs8::{DecodePublicKey, spki},
};
use serde_json::{Map, Value};

use crate::error::RegistrationError;

/// The trusted publisher, if one is configured.
#[derive(Clone, Default)]
pub struct Publisher(Option<Arc<VerifyingKey>>);

impl Publisher {
    /// Parses the publisher's public key.
    pub fn new(pem: &str) -> Result<Self, spki::Error> {
        Ok(Self(Some(Arc::new(VerifyingKey::from_public_key_pem(pem)?))))
    }

    /// Verifies a statement's signature, validity period and audience, and returns its claims.
    pub fn claims(
        &self,
        statement: &str,
        audience: &str,
        now: Timestamp,
    ) -> Result<Map<String, Value>, RegistrationError> {
        let mut parts = statement.split('.');
        let [Some(header), Some(body), Some(signature), None] = [(); 4].map(|()| parts.next())
        else {
            return Err(RegistrationError::InvalidStatement("it is not a compact JWT"));
        };
        let object =
            |part| serde_json::from_slice::<Map<String, Value>>(&BASE64.decode(part).ok()?).ok();
        let (Some(header), Some(claims)) = (object(header).zip(object(body))).unzip() else {
            return Err(RegistrationError::InvalidStatement(
                "its parts are not JSON objects in base64url",
            ));
        };
        // The algorithm is fixed by the publisher's key, and not chosen by the statement.
        if header.get("alg").and_then(Value::as_str) != Some("ES256") || header.contains_key("crit")
        {
            return Err(RegistrationError::InvalidStatement(
                "sign it with ES256, without critical extensions",
            ));
        }
        let issuer = claims.get("iss").and_then(Value::as_str);
        let issuer =
            issuer.ok_or(RegistrationError::InvalidStatement("the iss claim is missing"))?;
        let Some(key) = self.0.as_ref().filter(|_| issuer == PUBLISHER) else {
            return Err(RegistrationError::UnapprovedStatement("its issuer is not trusted"));
        };
        let signed = &statement.as_bytes()[..statement.len() - signature.len() - 1];
        let signature = BASE64.decode(signature).ok();
        let signature = signature.and_then(|bytes| Signature::from_slice(&bytes).ok());
        if signature.is_none_or(|signature| key.verify(signed, &signature).is_err()) {
            return Err(RegistrationError::InvalidStatement("its signature is invalid"));
        }
        if !is_valid_at(&claims, now) || !is_for_audience(&claims, audience) {
            return Err(RegistrationError::InvalidStatement(
                "it is expired, not yet valid, or for another audience",
            ));
        }
        Ok(claims)
    }
}

fn is_valid_at(claims: &Map<String, Value>, now: Timestamp) -> bool {
    let now = now.as_unix_micros() as f64 / 1e6;
    let check = |name: &str, rule: fn(f64, f64) -> bool| {
        claims.get(name).is_none_or(|at| at.as_f64().is_some_and(|at| rule(now, at)))
    };
    check("exp", |now, at| now < at) && check("nbf", |now, at| now >= at)
}

fn is_for_audience(claims: &Map<String, Value>, audience: &str) -> bool {
    match claims.get("aud") {
        None => true,
        Some(Value::Array(list)) => list.iter().any(|value| value == audience),
        Some(value) => value == audience,
    }
}

const PUBLISHER: &str = "https://software.example";
