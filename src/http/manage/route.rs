use http::{Method, Response};

use super::{ManageBody, ManageRequest, Caller, ManagementApi, failure::ManageError};
use crate::{audit::ExportFormat, model::KeyId};

/// What can be called for. The router and the OpenAPI document both go by [`ROUTES`], so neither
/// knows a route that the other does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    List,
    Create,
    Get,
    Change,
    Revoke,
    Delete,
    Rotate,
    Disable,
    Enable,
    Events,
    Audit,
    AuditLines,
    AuditTable,
    Introspect,
}

/// The method and the path of each route.
pub(crate) const ROUTES: [(Method, &str, Route); 14] = [
    (Method::GET, "/api-keys", Route::List),
    (Method::POST, "/api-keys", Route::Create),
    (Method::GET, "/api-keys/{id}", Route::Get),
    (Method::PATCH, "/api-keys/{id}", Route::Change),
    (Method::DELETE, "/api-keys/{id}", Route::Revoke),
    (Method::DELETE, "/api-keys/{id}/record", Route::Delete),
    (Method::POST, "/api-keys/{id}/rotate", Route::Rotate),
    (Method::POST, "/api-keys/{id}/disable", Route::Disable),
    (Method::POST, "/api-keys/{id}/enable", Route::Enable),
    (Method::GET, "/api-keys/{id}/events", Route::Events),
    (Method::GET, "/audit", Route::Audit),
    (Method::GET, "/audit.jsonl", Route::AuditLines),
    (Method::GET, "/audit.csv", Route::AuditTable),
    (Method::POST, "/introspect", Route::Introspect),
];

impl ManagementApi {
    /// Does what is called for, and answers.
    pub async fn handle(&self, caller: &Caller, call: &ManageRequest<'_>) -> Response<ManageBody> {
        let answer = self.route(caller, call).await;
        answer.unwrap_or_else(|failure| failure.into_response().map(ManageBody::from))
    }

    /// The answer to a body of more than [`MAX_BODY`](super::MAX_BODY).
    #[cfg(any(feature = "axum", feature = "actix"))]
    pub(crate) fn too_large() -> Response<String> {
        let detail = "the body is too large";
        ManageError::new(http::StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail).into_response()
    }

    async fn route(&self, caller: &Caller, call: &ManageRequest<'_>) -> Result<Response<ManageBody>, ManageError> {
        let (route, id) = Route::find(call.method, call.path)?;
        let whole = match route {
            Route::AuditLines => return self.export(caller, call, ExportFormat::JsonLines).await,
            Route::AuditTable => return self.export(caller, call, ExportFormat::Csv).await,
            Route::List => self.list(caller, call).await,
            Route::Create => self.create(caller, call).await,
            Route::Get => self.get(caller, key(id)?).await,
            Route::Change => self.change(caller, key(id)?, call).await,
            Route::Revoke => self.revoke(caller, key(id)?).await,
            Route::Delete => self.delete(caller, key(id)?).await,
            Route::Rotate => self.rotate(caller, key(id)?, call).await,
            Route::Disable => self.disable(caller, key(id)?).await,
            Route::Enable => self.enable(caller, key(id)?).await,
            Route::Events => self.events_of(caller, key(id)?, call).await,
            Route::Audit => self.audit(caller, call).await,
            Route::Introspect => self.introspect(caller, call).await,
        };
        Ok(whole?.map(ManageBody::from))
    }
}

impl Route {
    /// The route, and what stands in its path for the id of a key.
    fn find<'a>(method: &Method, path: &'a str) -> Result<(Self, &'a str), ManageError> {
        let mut allowed = Vec::new();
        for (known, template, route) in &ROUTES {
            let Some(id) = id_of(path, template) else { continue };
            if known == method {
                return Ok((*route, id));
            }
            allowed.push(known.as_str());
        }
        match allowed.is_empty() {
            true => Err(ManageError::no_such_page()),
            false => Err(ManageError::method(allowed.join(", "))),
        }
    }
}

/// What a path has in the place of the id, if it is of this form at all.
fn id_of<'a>(path: &'a str, template: &str) -> Option<&'a str> {
    let (mut id, mut expected) = ("", template.split('/').skip(1));
    for segment in path.strip_prefix('/').unwrap_or(path).split('/') {
        match expected.next()? {
            "{id}" => id = segment,
            word if word == segment => {}
            _ => return None,
        }
    }
    expected.next().is_none().then_some(id)
}

/// What is no id at all is answered as one that does not exist.
fn key(id: &str) -> Result<KeyId, ManageError> {
    id.parse().map_err(|_| ManageError::not_found())
}
