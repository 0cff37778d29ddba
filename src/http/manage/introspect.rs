use http::StatusCode;
use serde::Serialize;

use super::{
    ManageRequest, Caller, ManagementApi,
    failure::ManageError,
    reply::{Answer, json},
};
use crate::{
    model::{Permissions, Timestamp},
    verify::{Verified, VerifyError, VerifyRequest},
};

/// The answer of RFC 7662. Of a token that is not live, or that is none of the caller's business,
/// nothing is told but that.
#[derive(Default, Serialize)]
struct Introspection<'a> {
    active: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iat: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<i64>,
}

impl ManagementApi {
    /// A use like any other: it counts against the key's limits.
    pub(super) async fn introspect(&self, caller: &Caller, call: &ManageRequest<'_>) -> Answer {
        let token = call.form("token")?.ok_or_else(|| ManageError::invalid("send token=…"))?;
        let request = VerifyRequest::new().tenant(caller.owner().tenant());
        let verified = match self.keys.verify(token.as_bytes(), &request).await {
            Ok(verified) if caller.within().includes(verified.owner()) => verified,
            Ok(_) | Err(VerifyError::Denied(_)) => {
                return json(StatusCode::OK, &Introspection::default());
            }
            Err(VerifyError::Limited(limited)) => {
                return Err(ManageError::limited(&limited));
            }
            Err(VerifyError::Unavailable(error)) => return Err(error.into()),
        };
        json(StatusCode::OK, &Introspection::of(&verified))
    }
}

impl<'a> Introspection<'a> {
    fn of(verified: &'a Verified) -> Self {
        let seconds = |at: Timestamp| at.as_unix_micros() / 1_000_000;
        let key = verified.key();
        Self {
            active: true,
            scope: match verified.permissions() {
                Permissions::All => None,
                Permissions::Only(scopes) => Some(scopes.to_string()),
            },
            sub: Some(key.owner.account()),
            client_id: Some(key.id.to_string()),
            token_type: Some("Bearer"),
            iat: Some(seconds(key.created_at)),
            exp: key.expires_at.map(seconds),
        }
    }
}
