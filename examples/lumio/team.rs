//! Who is in a team, and as what. Only a session manages it: a key that got lost invites nobody.

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use keyward::audit::Outcome;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Lumio, Refused,
    people::{Everyone, Role},
    session::{Session, owner},
};

pub async fn members(State(lumio): State<Lumio>, session: Session) -> Result<Json<Value>, Refused> {
    let everyone = lumio.people.everyone()?;
    let here = everyone.people.values().filter(|person| person.team == session.person.team);
    let members = here.map(|person| json!({ "email": person.email, "role": person.role }));
    Ok(Json(json!({ "members": members.collect::<Vec<_>>() })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invitation {
    email: String,
    role: Role,
}

/// Whoever is invited signs in with that address: each has credentials of their own.
pub async fn invite(
    State(lumio): State<Lumio>,
    session: Session,
    Json(Invitation { email, role }): Json<Invitation>,
) -> Result<StatusCode, Refused> {
    let invited = lumio.people.change(|everyone| {
        let team = reaches(&lumio, &session, everyone, role)?;
        everyone.admit(&email, Some(team), role)
    });
    note(&lumio, &session, "team.member_invited", invited).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    role: Role,
}

pub async fn change(
    State(lumio): State<Lumio>,
    session: Session,
    Path(email): Path<String>,
    Json(Change { role }): Json<Change>,
) -> Result<StatusCode, Refused> {
    let changed = lumio.people.change(|everyone| {
        reaches(&lumio, &session, everyone, role)?;
        let member = colleague(&lumio, &session, everyone, &email)?;
        if let Some(person) = everyone.people.get_mut(&member) {
            person.role = role;
        }
        Ok(owner(&member))
    });
    if let Ok(member) = &changed {
        // What keys could do until now is asked anew.
        lumio.keys.account_changed(member).await?;
    }
    note(&lumio, &session, "team.role_changed", changed.map(|_| StatusCode::NO_CONTENT)).await
}

pub async fn remove(
    State(lumio): State<Lumio>,
    session: Session,
    Path(email): Path<String>,
) -> Result<StatusCode, Refused> {
    let removed = leave(&lumio, &session, &email).await;
    note(&lumio, &session, "team.member_removed", removed).await
}

/// Without the account its keys are good for nothing, also one that is being made meanwhile; they are
/// revoked for the log.
async fn leave(lumio: &Lumio, session: &Session, email: &str) -> Result<StatusCode, Refused> {
    let member = lumio.people.change(|everyone| {
        let member = colleague(lumio, session, everyone, email)?;
        everyone.people.remove(&member);
        everyone.sessions.retain(|_, session| session.account != member);
        Ok(owner(&member))
    })?;
    lumio.keys.account_changed(&member).await?;
    lumio.keys.revoke_all(&member, "left the team", &session.actor).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The caller's team, if the caller may hand out this role there now.
fn reaches(
    lumio: &Lumio,
    session: &Session,
    everyone: &Everyone,
    role: Role,
) -> Result<String, Refused> {
    let me = everyone.people.get(session.owner.account());
    let me = me.filter(|me| lumio.people.may(me.role, "invite"));
    let me = me.filter(|me| role <= me.role);
    me.map(|me| me.team.clone()).ok_or(Refused(StatusCode::FORBIDDEN, "not_your_role"))
}

/// The account of someone else of the caller's team, whom the caller may change.
fn colleague(
    lumio: &Lumio,
    session: &Session,
    everyone: &Everyone,
    email: &str,
) -> Result<String, Refused> {
    // Of who is in another team nothing is told, not even that there is an account.
    let me = session.owner.account();
    let team = everyone.people.get(me).map(|me| &me.team);
    let found = everyone.account(email).filter(|(account, _)| *account != me);
    let found = found.filter(|(_, person)| Some(&person.team) == team);
    let (account, person) = found.ok_or(Refused(StatusCode::NOT_FOUND, "not_in_your_team"))?;
    reaches(lumio, session, everyone, person.role)?;
    Ok(account.clone())
}

/// Logs a change of the team, or that it was refused.
async fn note<T>(
    lumio: &Lumio,
    by: &Session,
    event: &str,
    done: Result<T, Refused>,
) -> Result<T, Refused> {
    let outcome = if done.is_ok() { Outcome::Success } else { Outcome::Failure };
    lumio.keys.record_event(&by.owner, event, outcome, &by.actor).await?;
    done
}
