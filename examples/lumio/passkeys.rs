//! Passkeys as a second factor, by webauthn-rs. What was begun is kept in the session, and used up by
//! the first answer to it, right or wrong.

use axum::{Json, extract::State, http::StatusCode};
use keyward::audit::Outcome;
use webauthn_rs::prelude::{
    CreationChallengeResponse, Passkey, PublicKeyCredential, RegisterPublicKeyCredential,
    RequestChallengeResponse, Url, Uuid, Webauthn, WebauthnBuilder, WebauthnResult,
};

use super::{
    Lumio, Refused, UNAVAILABLE,
    session::{Half, Pending, Session},
};

/// For the pages that browsers load from here; a passkey made for them works nowhere else.
pub fn relying_party(port: u16) -> WebauthnResult<Webauthn> {
    let origin = Url::parse(&format!("http://localhost:{port}")).expect("a port makes no other");
    WebauthnBuilder::new("localhost", &origin)?.rp_name("Lumio").build()
}

/// What the browser passes to `navigator.credentials.create`.
pub async fn begin_to_add(
    State(lumio): State<Lumio>,
    Half(session): Half,
) -> Result<Json<CreationChallengeResponse>, Refused> {
    session.may_add_a_factor(&lumio, &session.person)?;
    let known = session.person.passkeys.iter().map(|passkey| passkey.cred_id().clone()).collect();
    let id = Uuid::parse_str(session.owner.account()).expect("`admit` made it of one");
    let name = &session.person.email;
    let begun = lumio.webauthn.start_passkey_registration(id, name, name, Some(known));
    let (challenge, state) = begun.map_err(|_| UNAVAILABLE)?;
    lumio.begun.begin(&session, Pending::Registration(Box::new(state)));
    Ok(Json(challenge))
}

/// What the browser got from there.
pub async fn add(
    State(lumio): State<Lumio>,
    Half(session): Half,
    Json(answer): Json<RegisterPublicKeyCredential>,
) -> Result<StatusCode, Refused> {
    let Some(Pending::Registration(state)) = lumio.begun.take(&session) else {
        return refuse(&lumio, &session).await;
    };
    let Ok(passkey) = lumio.webauthn.finish_passkey_registration(&answer, &state) else {
        return refuse(&lumio, &session).await;
    };
    lumio.people.change(|everyone| {
        let same = |known: &Passkey| known.cred_id() == passkey.cred_id();
        if everyone.people.values().flat_map(|person| &person.passkeys).any(same) {
            return Err(Refused(StatusCode::CONFLICT, "known_passkey"));
        }
        let me = session.me(everyone)?;
        session.may_add_a_factor(&lumio, me)?;
        me.passkeys.push(passkey);
        Ok(())
    })?;
    confirm(&lumio, &session, "two_factor.passkey_added").await
}

/// What the browser passes to `navigator.credentials.get`.
pub async fn begin_to_confirm(
    State(lumio): State<Lumio>,
    Half(session): Half,
) -> Result<Json<RequestChallengeResponse>, Refused> {
    if session.person.passkeys.is_empty() {
        return Err(Refused(StatusCode::NOT_FOUND, "no_passkey"));
    }
    let begun = lumio.webauthn.start_passkey_authentication(&session.person.passkeys);
    let (challenge, state) = begun.map_err(|_| UNAVAILABLE)?;
    lumio.begun.begin(&session, Pending::Assertion(Box::new(state)));
    Ok(Json(challenge))
}

/// What the browser got from there.
pub async fn assert(
    State(lumio): State<Lumio>,
    Half(session): Half,
    Json(answer): Json<PublicKeyCredential>,
) -> Result<StatusCode, Refused> {
    let Some(Pending::Assertion(state)) = lumio.begun.take(&session) else {
        return refuse(&lumio, &session).await;
    };
    let Ok(done) = lumio.webauthn.finish_passkey_authentication(&answer, &state) else {
        return refuse(&lumio, &session).await;
    };
    let counted = lumio.people.change(|everyone| {
        let mut known = session.me(everyone)?.passkeys.iter_mut();
        // Its counter goes up, if it has one, so that a copy of it is noticed.
        let newer = known.find_map(|passkey| passkey.update_credential(&done));
        newer.filter(|newer| *newer || done.counter() == 0).ok_or(NOT_ACCEPTED)
    });
    match counted {
        Ok(_) => confirm(&lumio, &session, "second_factor.accepted").await,
        Err(NOT_ACCEPTED) => refuse(&lumio, &session).await,
        Err(error) => Err(error),
    }
}

async fn confirm(lumio: &Lumio, session: &Session, event: &str) -> Result<StatusCode, Refused> {
    lumio.keys.record_event(&session.owner, event, Outcome::Success, &session.actor).await?;
    session.confirm(lumio, lumio.clock.now())
}

async fn refuse(lumio: &Lumio, session: &Session) -> Result<StatusCode, Refused> {
    let event = "second_factor.refused";
    lumio.keys.record_event(&session.owner, event, Outcome::Failure, &session.actor).await?;
    Err(NOT_ACCEPTED)
}

const NOT_ACCEPTED: Refused = Refused(StatusCode::BAD_REQUEST, "passkey_not_accepted");
