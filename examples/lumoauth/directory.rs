//! The admin API: the users of a tenant and their roles.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    routing::{get, post, put},
};
use keyward::{Verified, enroll::EmailAddress, model::Invalid, tower::ApiKeyLayer};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::App;

/// The users of all tenants, in memory. A real service uses a database table keyed by tenant.
#[derive(Clone, Default)]
pub struct Directory(Arc<Mutex<HashMap<String, BTreeMap<usize, User>>>>);

#[derive(Clone, Serialize)]
struct User {
    id: usize,
    email: String,
    roles: BTreeSet<Role>,
}

#[derive(Clone, Copy, Deserialize, Serialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
enum Role {
    Admin,
    Editor,
    Viewer,
}

/// The routes below `/t/{tenantSlug}/api/v1/admin`, each guarded by the scope that it needs.
pub fn routes(
    guard: impl Fn(&'static str) -> Result<ApiKeyLayer, Invalid>,
) -> Result<Router<App>, Invalid> {
    Ok(Router::new()
        .route("/t/{tenantSlug}/api/v1/admin/users", get(list).route_layer(guard("users:read")?))
        .route(
            "/t/{tenantSlug}/api/v1/admin/users",
            post(create).route_layer(guard("users:write")?),
        )
        .route("/t/{tenantSlug}/api/v1/admin/roles", get(roles).route_layer(guard("roles:read")?))
        .route(
            "/t/{tenantSlug}/api/v1/admin/users/{user}/roles/{role}",
            put(assign).route_layer(guard("roles:write")?),
        ))
}

impl Directory {
    fn tenants(&self) -> MutexGuard<'_, HashMap<String, BTreeMap<usize, User>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn list(State(App { directory, .. }): State<App>, verified: Verified) -> Json<Value> {
    let tenants = directory.tenants();
    let users = tenants.get(verified.owner().tenant()).into_iter().flat_map(BTreeMap::values);
    Json(json!({ "users": users.collect::<Vec<_>>() }))
}

#[derive(Deserialize)]
struct NewUser {
    email: String,
}

async fn create(
    State(App { directory, .. }): State<App>,
    verified: Verified,
    Json(new): Json<NewUser>,
) -> Result<(StatusCode, Json<User>), StatusCode> {
    let email: EmailAddress = new.email.parse().map_err(|_| StatusCode::UNPROCESSABLE_ENTITY)?;
    let mut tenants = directory.tenants();
    // Use the tenant of the key. The guard has checked that the path names the same tenant.
    let users = tenants.entry(verified.owner().tenant().to_owned()).or_default();
    if users.values().any(|user| user.email == email.as_str()) {
        return Err(StatusCode::CONFLICT);
    }
    let id = users.len() + 1;
    let user = User { id, email: email.as_str().to_owned(), roles: BTreeSet::new() };
    users.insert(id, user.clone());
    Ok((StatusCode::CREATED, Json(user)))
}

async fn roles() -> Json<Value> {
    Json(json!({ "roles": [Role::Admin, Role::Editor, Role::Viewer] }))
}

#[derive(Deserialize)]
struct Assignment {
    user: usize,
    role: Role,
}

async fn assign(
    State(App { directory, .. }): State<App>,
    verified: Verified,
    Path(Assignment { user, role }): Path<Assignment>,
) -> Result<Json<User>, StatusCode> {
    let mut tenants = directory.tenants();
    let users = tenants.get_mut(verified.owner().tenant());
    let user = users.and_then(|users| users.get_mut(&user)).ok_or(StatusCode::NOT_FOUND)?;
    user.roles.insert(role);
    Ok(Json(user.clone()))
}
