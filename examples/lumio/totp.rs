//! Authenticator apps (TOTP) as a second factor.

use axum::{
    Json,
    extract::State,
    http::{
        HeaderName, StatusCode,
        header::{CACHE_CONTROL, RETRY_AFTER},
    },
    response::{IntoResponse, Response},
};
use keyward::{
    Timestamp,
    audit::Outcome,
    totp::{TotpError, TotpSecret},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    ApiError, Lumio, UNAVAILABLE,
    session::{PartialSession, PendingFactor, Session},
};

/// Creates a secret, and returns it as a QR code and as a URI. It takes effect once a code is verified.
pub async fn begin(
    State(lumio): State<Lumio>,
    PartialSession(session): PartialSession,
) -> Result<([(HeaderName, &'static str); 1], Json<Value>), ApiError> {
    session.check_can_add_factor(&lumio, &session.user)?;
    let secret = TotpSecret::generate().map_err(|_| UNAVAILABLE)?;
    let setup = lumio.totp.setup(&secret, &session.user.email);
    let response = json!({ "uri": setup.uri().expose(), "qr": setup.qr_svg().expose() });
    lumio.pending.insert(&session, PendingFactor::App(secret));
    Ok(([(CACHE_CONTROL, "no-store")], Json(response)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TotpCode {
    code: String,
}

/// Verifies the first code, which enables the app.
pub async fn enable(
    State(lumio): State<Lumio>,
    PartialSession(session): PartialSession,
    Json(TotpCode { code }): Json<TotpCode>,
) -> Result<StatusCode, Response> {
    let Some(secret) = lumio.pending.new_app(&session) else {
        return Err(ApiError(StatusCode::CONFLICT, "not_begun").into_response());
    };
    let at = check(&lumio, &session, &secret, &code).await?;
    let enabled = async {
        lumio.users.update(|data| {
            let me = session.current_user(data)?;
            session.check_can_add_factor(&lumio, me)?;
            // A real service encrypts the secret.
            me.totp = Some(secret.expose().to_owned());
            Ok(())
        })?;
        let (event, outcome) = ("two_factor.totp_enabled", Outcome::Success);
        lumio.keys.record_event(&session.owner, event, outcome, &session.actor).await?;
        session.confirm(&lumio, at)
    };
    enabled.await.map_err(ApiError::into_response)
}

/// Verifies a later code.
pub async fn confirm(
    State(lumio): State<Lumio>,
    PartialSession(session): PartialSession,
    Json(TotpCode { code }): Json<TotpCode>,
) -> Result<StatusCode, Response> {
    let secret = session.user.totp.as_deref().map(TotpSecret::from_base32);
    let Some(Ok(secret)) = secret else {
        return Err(ApiError(StatusCode::NOT_FOUND, "no_totp").into_response());
    };
    let at = check(&lumio, &session, &secret, &code).await?;
    session.confirm(&lumio, at).map_err(ApiError::into_response)
}

async fn check(
    lumio: &Lumio,
    session: &Session,
    secret: &TotpSecret,
    code: &str,
) -> Result<Timestamp, Response> {
    let checked = lumio.totp.check(&session.owner, secret, code, &session.actor).await;
    checked.map_err(|error| match error {
        TotpError::WrongCode => ApiError(StatusCode::BAD_REQUEST, "wrong_code").into_response(),
        TotpError::UsedCode => ApiError(StatusCode::BAD_REQUEST, "used_code").into_response(),
        TotpError::TooManyAttempts(wait) => {
            let error = ApiError(StatusCode::TOO_MANY_REQUESTS, "too_many_codes");
            let seconds = wait.as_millis().div_ceil(1_000).max(1);
            ([(RETRY_AFTER, seconds.to_string())], error).into_response()
        }
        TotpError::Failed(error) => ApiError::from(error).into_response(),
    })
}
