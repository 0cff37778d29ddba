//! The API by which the users of a service manage their own keys, without a framework.
//!
//! [`ManagementApi`] takes a [`ManageRequest`] and the [`Caller`] whom the host has authenticated, and answers; the
//! adapters bring it into a router. Paths are relative to where it is mounted.
//!
//! | call | does |
//! |---|---|
//! | `POST /api-keys` | makes a key: 201, with the secret this once |
//! | `GET /api-keys?status=&limit=&cursor=` | lists keys, newest first |
//! | `GET /api-keys/{id}` | one key |
//! | `PATCH /api-keys/{id}` | changes name, scopes, networks, metadata |
//! | `DELETE /api-keys/{id}` | revokes it; its record stays |
//! | `DELETE /api-keys/{id}/record` | removes the record, and with it the key |
//! | `POST /api-keys/{id}/rotate` | gives it a new secret, shown this once |
//! | `POST /api-keys/{id}/disable`, `…/enable` | switches it off and on |
//! | `GET /api-keys/{id}/events` | what happened to it |
//! | `GET /audit?event=&from=&until=&limit=&cursor=` | what happened to all of them |
//! | `GET /audit.jsonl?event=&from=&until=`, `/audit.csv?…` | all of that as a file, however long |
//! | `POST /introspect` | whether a secret is live (RFC 7662) |
//!
//! A caller sees and changes its own keys, or those of its tenant if it is an administrator of it;
//! the id of any other key is answered as one that does not exist. Nobody can name another owner.
//! Errors are problems (RFC 9457) with a stable `code`.
//!
//! A change that lets a key do more can need a second factor, as the host's
//! [`StepUp`](crate::accounts::StepUp) says: then it is answered by `second_factor_required` (403), with
//! how many seconds old that may be as `maxAge`. The host's session asks the user for it and says so by
//! [`Actor::second_factor_at`](crate::model::Actor::second_factor_at); then the same call is made again.
//!
//! `Idempotency-Key` makes trying again safe when the answer to a create or a rotate was lost: the
//! same key gets another secret in place of the one that nobody received. No secret is stored for
//! that. Its value counts within one owner, for a day, until the next rotation of that key.
//!
//! People without a session sign in by e-mail, where the host wants that: [`SignIn`].
//!
//! A host whose callers are browser sessions puts its check against cross-site requests in front.

mod audit;
mod bodies;
mod body;
mod call;
mod caller;
mod create;
mod failure;
mod introspect;
mod keys;
#[cfg(any(feature = "axum", feature = "actix"))]
mod polled;
mod reply;
pub(crate) mod route;
mod sign_in;
mod views;

pub use body::ManageBody;
pub use call::ManageRequest;
pub use caller::Caller;
#[cfg(any(feature = "axum", feature = "actix"))]
pub(crate) use polled::Polled;
pub use sign_in::SignIn;

use crate::api::ApiKeys;

/// The management API of one [`ApiKeys`].
///
/// # Examples
/// ```
/// # use keyward::{Actor, Owner, testing::TestKeys};
/// use http::Method;
/// use keyward::http::manage::{ManageRequest, Caller, ManagementApi};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let keys = TestKeys::new().keys;
/// let ada = Caller::new(Owner::new("acme", "ada")?, Actor::account("ada@acme.example"));
/// let call = ManageRequest::new(&Method::POST, "/api-keys").json(br#"{"name": "ci-pipeline"}"#);
/// let mut response = ManagementApi::new(keys).handle(&ada, &call).await;
/// assert_eq!(response.status(), 201);
/// while let Some(piece) = response.body_mut().next_chunk().await? {
///     assert!(piece.contains("ci-pipeline"));
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct ManagementApi {
    keys: ApiKeys,
}

impl ManagementApi {
    /// The API of these keys.
    pub fn new(keys: ApiKeys) -> Self {
        Self { keys }
    }
}

/// The largest body that an adapter reads.
#[cfg(any(feature = "axum", feature = "actix"))]
pub(crate) const MAX_BODY: usize = 64 * 1024;
