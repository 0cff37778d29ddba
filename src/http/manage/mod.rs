//! The API by which users of a service manage their own keys, independent of the web framework.
//!
//! [`ManagementApi`] takes a [`ManageRequest`] and the [`Caller`] that the host has authenticated,
//! and returns the response. The adapters mount it in a router. Paths are relative to where it is
//! mounted.
//!
//! | request | effect |
//! |---|---|
//! | `POST /api-keys` | creates a key: 201; the response is the only one that contains the secret |
//! | `GET /api-keys?status=&limit=&cursor=` | lists keys, newest first |
//! | `GET /api-keys/{id}` | returns a key |
//! | `PATCH /api-keys/{id}` | changes name, scopes, networks, metadata |
//! | `DELETE /api-keys/{id}` | revokes the key; its record stays |
//! | `DELETE /api-keys/{id}/record` | deletes the key and its record |
//! | `POST /api-keys/{id}/rotate` | issues a new secret, contained only in this response |
//! | `POST /api-keys/{id}/disable`, `…/enable` | disables the key, and enables it again |
//! | `GET /api-keys/{id}/events` | lists the audit events of the key |
//! | `GET /audit?event=&from=&until=&limit=&cursor=` | lists the audit events of all keys |
//! | `GET /audit.jsonl?event=&from=&until=`, `/audit.csv?…` | exports the audit events as a file of any length |
//! | `POST /introspect` | token introspection (RFC 7662): whether a secret is valid |
//!
//! A caller sees and changes its own keys, or those of its tenant if it is an administrator. The
//! response for the id of any other key is the same as for an id that does not exist. No request
//! can name another owner. Errors are problem details (RFC 9457) with a stable `code`.
//!
//! A change that widens what a key may do can require a second factor, if the host's
//! [`StepUp`](crate::accounts::StepUp) policy says so. The response is then `second_factor_required`
//! (403), with the maximum age of the second factor in seconds as `maxAge`. The host's session asks
//! the user for it, records it with
//! [`Actor::second_factor_at`](crate::model::Actor::second_factor_at), and the client repeats the
//! request.
//!
//! `Idempotency-Key` makes it safe to retry a create or rotate request whose response was lost: the
//! retry returns the same key with a new secret in place of the lost one. No secret is stored for
//! that. A value is valid within one owner for one day, until the next rotation of that key.
//!
//! [`SignIn`] lets people without a session sign in by e-mail, if the host enables it.
//!
//! If callers are browser sessions, the host MUST add its own protection against cross-site requests
//! (CSRF).

mod error;
mod requests;
mod responses;
mod routes;
mod sign_in;

#[cfg(any(feature = "axum", feature = "actix"))]
pub(crate) use requests::MAX_BODY;
pub use requests::{Caller, ManageRequest};
#[cfg(any(feature = "axum", feature = "actix"))]
pub(crate) use responses::BodyStream;
pub use responses::ManageBody;
pub use routes::ManagementApi;
#[cfg(feature = "openapi")]
pub(crate) use routes::{ROUTES, Route};
pub use sign_in::SignIn;
