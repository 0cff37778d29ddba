//! Team members and their roles. Only a session can manage them, so a leaked key cannot invite anyone.

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use keyward::audit::Outcome;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    ApiError, Lumio,
    session::{Session, owner},
    users::{Role, UserData},
};

pub async fn members(
    State(lumio): State<Lumio>,
    session: Session,
) -> Result<Json<Value>, ApiError> {
    let data = lumio.users.load()?;
    let here = data.users.values().filter(|user| user.team == session.user.team);
    let members = here.map(|user| json!({ "email": user.email, "role": user.role }));
    Ok(Json(json!({ "members": members.collect::<Vec<_>>() })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invitation {
    email: String,
    role: Role,
}

/// Invites a user, who then signs in with this address and has their own credentials.
pub async fn invite(
    State(lumio): State<Lumio>,
    session: Session,
    Json(Invitation { email, role }): Json<Invitation>,
) -> Result<StatusCode, ApiError> {
    let invited = lumio.users.update(|data| {
        let team = check_can_grant(&lumio, &session, data, role)?;
        data.create_user(&email, Some(team), role)
    });
    record(&lumio, &session, "team.member_invited", invited).await
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
) -> Result<StatusCode, ApiError> {
    let changed = lumio.users.update(|data| {
        check_can_grant(&lumio, &session, data, role)?;
        let member = find_member(&lumio, &session, data, &email)?;
        if let Some(user) = data.users.get_mut(&member) {
            user.role = role;
        }
        Ok(owner(&member))
    });
    if let Ok(member) = &changed {
        // Invalidates the cached permissions of the member's keys.
        lumio.keys.account_changed(member).await?;
    }
    record(&lumio, &session, "team.role_changed", changed.map(|_| StatusCode::NO_CONTENT)).await
}

pub async fn remove(
    State(lumio): State<Lumio>,
    session: Session,
    Path(email): Path<String>,
) -> Result<StatusCode, ApiError> {
    let removed = delete_member(&lumio, &session, &email).await;
    record(&lumio, &session, "team.member_removed", removed).await
}

/// Deletes the account, which makes all its keys invalid, even a key that is being created concurrently. The keys
/// are also revoked, so that the audit log shows it.
async fn delete_member(
    lumio: &Lumio,
    session: &Session,
    email: &str,
) -> Result<StatusCode, ApiError> {
    let member = lumio.users.update(|data| {
        let member = find_member(lumio, session, data, email)?;
        data.users.remove(&member);
        data.sessions.retain(|_, session| session.account != member);
        Ok(owner(&member))
    })?;
    lumio.keys.account_changed(&member).await?;
    lumio.keys.revoke_all(&member, "left the team", &session.actor).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Returns the session's team if its user may grant this role. This is as sensitive as creating a key.
fn check_can_grant(
    lumio: &Lumio,
    session: &Session,
    data: &UserData,
    role: Role,
) -> Result<String, ApiError> {
    let me = data.users.get(session.owner.account());
    let me = me.filter(|me| lumio.users.allows(me.role, "invite"));
    let me = me.filter(|me| role <= me.role);
    let me = me.ok_or(ApiError(StatusCode::FORBIDDEN, "not_your_role"))?;
    session.check_step_up(lumio, data)?;
    Ok(me.team.clone())
}

/// Returns the account of another team member that the session's user may change.
fn find_member(
    lumio: &Lumio,
    session: &Session,
    data: &UserData,
    email: &str,
) -> Result<String, ApiError> {
    // Members of other teams are reported as not found, so that the response does not reveal accounts.
    let me = session.owner.account();
    let team = data.users.get(me).map(|me| &me.team);
    let found = data.account(email).filter(|(account, _)| *account != me);
    let found = found.filter(|(_, user)| Some(&user.team) == team);
    let (account, user) = found.ok_or(ApiError(StatusCode::NOT_FOUND, "not_in_your_team"))?;
    check_can_grant(lumio, session, data, user.role)?;
    Ok(account.clone())
}

/// Records a change of the team and its outcome.
async fn record<T>(
    lumio: &Lumio,
    by: &Session,
    event: &str,
    result: Result<T, ApiError>,
) -> Result<T, ApiError> {
    let outcome = if result.is_ok() { Outcome::Success } else { Outcome::Failure };
    lumio.keys.record_event(&by.owner, event, outcome, &by.actor).await?;
    result
}
