//! Codes of an authenticator app as a second factor.

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
    Lumio, Refused, UNAVAILABLE,
    session::{Half, Pending, Session},
};

/// A new secret, as a picture to scan and as an address. It counts once a code of it is there.
pub async fn begin(
    State(lumio): State<Lumio>,
    Half(session): Half,
) -> Result<([(HeaderName, &'static str); 1], Json<Value>), Refused> {
    session.may_add_a_factor(&lumio, &session.person)?;
    let secret = TotpSecret::generate().map_err(|_| UNAVAILABLE)?;
    let setup = lumio.totp.setup(&secret, &session.person.email);
    let shown = json!({ "uri": setup.uri().expose(), "qr": setup.qr_svg().expose() });
    lumio.begun.begin(&session, Pending::App(secret));
    Ok(([(CACHE_CONTROL, "no-store")], Json(shown)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Typed {
    code: String,
}

/// The first code of the app.
pub async fn enable(
    State(lumio): State<Lumio>,
    Half(session): Half,
    Json(Typed { code }): Json<Typed>,
) -> Result<StatusCode, Response> {
    let Some(secret) = lumio.begun.new_app(&session) else {
        return Err(Refused(StatusCode::CONFLICT, "not_begun").into_response());
    };
    let at = check(&lumio, &session, &secret, &code).await?;
    let enabled = async {
        lumio.people.change(|everyone| {
            let me = session.me(everyone)?;
            session.may_add_a_factor(&lumio, me)?;
            // A real service encrypts it.
            me.totp = Some(secret.expose().to_owned());
            Ok(())
        })?;
        let (event, done) = ("two_factor.totp_enabled", Outcome::Success);
        lumio.keys.record_event(&session.owner, event, done, &session.actor).await?;
        session.confirm(&lumio, at)
    };
    enabled.await.map_err(Refused::into_response)
}

/// Any later code.
pub async fn confirm(
    State(lumio): State<Lumio>,
    Half(session): Half,
    Json(Typed { code }): Json<Typed>,
) -> Result<StatusCode, Response> {
    let secret = session.person.totp.as_deref().map(TotpSecret::from_base32);
    let Some(Ok(secret)) = secret else {
        return Err(Refused(StatusCode::NOT_FOUND, "no_totp").into_response());
    };
    let at = check(&lumio, &session, &secret, &code).await?;
    session.confirm(&lumio, at).map_err(Refused::into_response)
}

async fn check(
    lumio: &Lumio,
    session: &Session,
    secret: &TotpSecret,
    code: &str,
) -> Result<Timestamp, Response> {
    let checked = lumio.totp.check(&session.owner, secret, code, &session.actor).await;
    checked.map_err(|error| match error {
        TotpError::WrongCode => Refused(StatusCode::BAD_REQUEST, "wrong_code").into_response(),
        TotpError::UsedCode => Refused(StatusCode::BAD_REQUEST, "used_code").into_response(),
        TotpError::TooManyAttempts(wait) => {
            let refused = Refused(StatusCode::TOO_MANY_REQUESTS, "too_many_codes");
            let seconds = wait.as_millis().div_ceil(1_000).max(1);
            ([(RETRY_AFTER, seconds.to_string())], refused).into_response()
        }
        TotpError::Failed(error) => Refused::from(error).into_response(),
    })
}
