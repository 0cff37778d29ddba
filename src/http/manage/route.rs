use http::{Method, Response};

use super::{Call, Caller, Manage, failure::Failure, reply::Answer};
use crate::key::KeyId;

impl Manage {
    /// Does what is called for, and answers.
    pub async fn answer(&self, caller: &Caller, call: &Call<'_>) -> Response<String> {
        self.route(caller, call).await.unwrap_or_else(Failure::into_response)
    }

    /// The answer to a body of more than [`MAX_BODY`](super::MAX_BODY).
    #[cfg(any(feature = "axum", feature = "actix"))]
    pub(crate) fn too_large() -> Response<String> {
        let detail = "the body is too large";
        Failure::new(http::StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail).into_response()
    }

    async fn route(&self, caller: &Caller, call: &Call<'_>) -> Answer {
        let path = call.path.strip_prefix('/').unwrap_or(call.path);
        let mut segments = path.split('/');
        let parts = [(); 4].map(|()| segments.next());
        let (get, post) = (call.method == Method::GET, call.method == Method::POST);
        match parts {
            [Some("api-keys"), None, ..] if get => self.list(caller, call).await,
            [Some("api-keys"), None, ..] if post => self.create(caller, call).await,
            [Some("api-keys"), None, ..] => Err(Failure::method("GET, POST")),
            [Some("api-keys"), Some(id), None, _] => match *call.method {
                Method::GET => self.get(caller, key(id)?).await,
                Method::PATCH => self.change(caller, key(id)?, call).await,
                Method::DELETE => self.revoke(caller, key(id)?).await,
                _ => Err(Failure::method("GET, PATCH, DELETE")),
            },
            [Some("api-keys"), Some(id), Some(act), None] => match act {
                "rotate" if post => self.rotate(caller, key(id)?, call).await,
                "disable" if post => self.disable(caller, key(id)?).await,
                "enable" if post => self.enable(caller, key(id)?).await,
                "rotate" | "disable" | "enable" => Err(Failure::method("POST")),
                "events" if get => self.events_of(caller, key(id)?, call).await,
                "events" => Err(Failure::method("GET")),
                "record" if call.method == Method::DELETE => self.delete(caller, key(id)?).await,
                "record" => Err(Failure::method("DELETE")),
                _ => Err(Failure::no_such_page()),
            },
            [Some("audit"), None, ..] if get => self.audit(caller, call).await,
            [Some("audit"), None, ..] => Err(Failure::method("GET")),
            [Some("introspect"), None, ..] if post => self.introspect(caller, call).await,
            [Some("introspect"), None, ..] => Err(Failure::method("POST")),
            _ => Err(Failure::no_such_page()),
        }
    }
}

/// What is no id at all is answered as one that does not exist.
fn key(id: &str) -> Result<KeyId, Failure> {
    id.parse().map_err(|_| Failure::not_found())
}
