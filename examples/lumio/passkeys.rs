//! Passkeys as a second factor, with webauthn-rs. The challenge is stored with the session. The first response
//! consumes it, whether it is valid or not.

use axum::{Json, extract::State, http::StatusCode};
use keyward::audit::Outcome;
use webauthn_rs::prelude::{
    CreationChallengeResponse, Passkey, PublicKeyCredential, RegisterPublicKeyCredential,
    RequestChallengeResponse, Url, Uuid, Webauthn, WebauthnBuilder, WebauthnResult,
};

use super::{
    ApiError, Lumio, UNAVAILABLE,
    session::{PartialSession, PendingFactor, Session},
};

/// The relying party for pages of this server. A passkey is bound to their origin.
pub fn relying_party(port: u16) -> WebauthnResult<Webauthn> {
    let origin =
        Url::parse(&format!("http://localhost:{port}")).expect("the URL is valid with any port");
    WebauthnBuilder::new("localhost", &origin)?.rp_name("Lumio").build()
}

/// Returns the options for `navigator.credentials.create`.
pub async fn begin_to_add(
    State(lumio): State<Lumio>,
    PartialSession(session): PartialSession,
) -> Result<Json<CreationChallengeResponse>, ApiError> {
    session.check_can_add_factor(&lumio, &session.user)?;
    let known = session.user.passkeys.iter().map(|passkey| passkey.cred_id().clone()).collect();
    let id = Uuid::parse_str(session.owner.account()).expect("account ids are UUIDs");
    let name = &session.user.email;
    let started = lumio.webauthn.start_passkey_registration(id, name, name, Some(known));
    let (challenge, state) = started.map_err(|_| UNAVAILABLE)?;
    lumio.pending.insert(&session, PendingFactor::Registration(Box::new(state)));
    Ok(Json(challenge))
}

/// Adds the passkey that `navigator.credentials.create` returned.
pub async fn add(
    State(lumio): State<Lumio>,
    PartialSession(session): PartialSession,
    Json(response): Json<RegisterPublicKeyCredential>,
) -> Result<StatusCode, ApiError> {
    let Some(PendingFactor::Registration(state)) = lumio.pending.take(&session) else {
        return refuse(&lumio, &session).await;
    };
    let Ok(passkey) = lumio.webauthn.finish_passkey_registration(&response, &state) else {
        return refuse(&lumio, &session).await;
    };
    lumio.users.update(|data| {
        let same = |known: &Passkey| known.cred_id() == passkey.cred_id();
        if data.users.values().flat_map(|user| &user.passkeys).any(same) {
            return Err(ApiError(StatusCode::CONFLICT, "known_passkey"));
        }
        let me = session.current_user(data)?;
        session.check_can_add_factor(&lumio, me)?;
        me.passkeys.push(passkey);
        Ok(())
    })?;
    confirm(&lumio, &session, "two_factor.passkey_added").await
}

/// Returns the options for `navigator.credentials.get`.
pub async fn begin_to_confirm(
    State(lumio): State<Lumio>,
    PartialSession(session): PartialSession,
) -> Result<Json<RequestChallengeResponse>, ApiError> {
    if session.user.passkeys.is_empty() {
        return Err(ApiError(StatusCode::NOT_FOUND, "no_passkey"));
    }
    let started = lumio.webauthn.start_passkey_authentication(&session.user.passkeys);
    let (challenge, state) = started.map_err(|_| UNAVAILABLE)?;
    lumio.pending.insert(&session, PendingFactor::Assertion(Box::new(state)));
    Ok(Json(challenge))
}

/// Verifies the assertion that `navigator.credentials.get` returned.
pub async fn assert(
    State(lumio): State<Lumio>,
    PartialSession(session): PartialSession,
    Json(response): Json<PublicKeyCredential>,
) -> Result<StatusCode, ApiError> {
    let Some(PendingFactor::Assertion(state)) = lumio.pending.take(&session) else {
        return refuse(&lumio, &session).await;
    };
    let Ok(result) = lumio.webauthn.finish_passkey_authentication(&response, &state) else {
        return refuse(&lumio, &session).await;
    };
    let updated = lumio.users.update(|data| {
        let mut known = session.current_user(data)?.passkeys.iter_mut();
        // If the passkey has a counter, it must increase: otherwise the passkey may have been cloned.
        let newer = known.find_map(|passkey| passkey.update_credential(&result));
        newer.filter(|newer| *newer || result.counter() == 0).ok_or(NOT_ACCEPTED)
    });
    match updated {
        Ok(_) => confirm(&lumio, &session, "second_factor.accepted").await,
        Err(NOT_ACCEPTED) => refuse(&lumio, &session).await,
        Err(error) => Err(error),
    }
}

async fn confirm(lumio: &Lumio, session: &Session, event: &str) -> Result<StatusCode, ApiError> {
    lumio.keys.record_event(&session.owner, event, Outcome::Success, &session.actor).await?;
    session.confirm(lumio, lumio.clock.now())
}

async fn refuse(lumio: &Lumio, session: &Session) -> Result<StatusCode, ApiError> {
    let event = "second_factor.refused";
    lumio.keys.record_event(&session.owner, event, Outcome::Failure, &session.actor).await?;
    Err(NOT_ACCEPTED)
}

const NOT_ACCEPTED: ApiError = ApiError(StatusCode::BAD_REQUEST, "passkey_not_accepted");
