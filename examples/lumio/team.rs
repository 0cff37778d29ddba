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
    people::{Everyone, Person, Role},
    session::{Session, owner},
};

pub async fn members(State(lumio): State<Lumio>, session: Session) -> Result<Json<Value>, Refused> {
    let everyone = lumio.people.everyone()?;
    let here = everyone.people.iter().filter(|(_, person)| person.team == session.person.team);
    let members = here.map(|(email, person)| json!({ "email": email, "role": person.role }));
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
    owner(&email)?;
    let invited = lumio.people.change(|everyone| {
        let team = reaches(&lumio, &session, everyone, role)?;
        if everyone.people.contains_key(&email) {
            return Err(Refused(StatusCode::CONFLICT, "has_an_account"));
        }
        everyone.people.insert(email, Person::new(team, role));
        Ok(StatusCode::CREATED)
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
        colleague(&lumio, &session, everyone, &email)?.role = role;
        Ok(StatusCode::NO_CONTENT)
    });
    if changed.is_ok() {
        // What keys could do until now is asked anew.
        lumio.keys.account_changed(&owner(&email)?).await?;
    }
    note(&lumio, &session, "team.role_changed", changed).await
}

pub async fn remove(
    State(lumio): State<Lumio>,
    session: Session,
    Path(email): Path<String>,
) -> Result<StatusCode, Refused> {
    let removed = leave(&lumio, &session, &email).await;
    note(&lumio, &session, "team.member_removed", removed).await
}

/// The keys end for good, also those that are made until there is no account any more.
async fn leave(lumio: &Lumio, session: &Session, email: &str) -> Result<StatusCode, Refused> {
    let member = owner(email)?;
    colleague(lumio, session, &mut lumio.people.everyone()?, email)?;
    lumio.keys.revoke_all(&member, "left the team", &session.actor).await?;
    lumio.people.change(|everyone| {
        colleague(lumio, session, everyone, email)?;
        everyone.people.remove(email);
        everyone.sessions.retain(|_, session| session.email != email);
        Ok(())
    })?;
    lumio.keys.revoke_all(&member, "left the team", &session.actor).await?;
    lumio.keys.account_changed(&member).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The caller's team, if the caller may hand out this role there now.
fn reaches(
    lumio: &Lumio,
    session: &Session,
    everyone: &Everyone,
    role: Role,
) -> Result<String, Refused> {
    let me = everyone.people.get(&session.email).filter(|me| lumio.people.may(me.role, "invite"));
    let me = me.filter(|me| role <= me.role);
    me.map(|me| me.team.clone()).ok_or(Refused(StatusCode::FORBIDDEN, "not_your_role"))
}

/// Someone else of the caller's team, whom the caller may change.
fn colleague<'a>(
    lumio: &Lumio,
    session: &Session,
    everyone: &'a mut Everyone,
    email: &str,
) -> Result<&'a mut Person, Refused> {
    // Of who is in another team nothing is told, not even that there is an account.
    let team = everyone.people.get(&session.email).map(|me| &me.team);
    let found = everyone.people.get(email).filter(|_| email != session.email);
    let found = found.filter(|person| Some(&person.team) == team).map(|person| person.role);
    let nobody = Refused(StatusCode::NOT_FOUND, "not_in_your_team");
    let Some(role) = found else { return Err(nobody) };
    reaches(lumio, session, everyone, role)?;
    everyone.people.get_mut(email).ok_or(nobody)
}

/// Logs a change of the team, or that it was refused.
async fn note<T>(
    lumio: &Lumio,
    by: &Session,
    event: &str,
    done: Result<T, Refused>,
) -> Result<T, Refused> {
    let outcome = if done.is_ok() { Outcome::Success } else { Outcome::Failure };
    lumio.keys.note(&by.owner, event, outcome, &by.actor).await?;
    done
}
