//! Request handling that every web framework shares: reading credentials, finding the client's
//! address, verifying the key, and building the response to a rejected request.
//!
//! The adapters `tower`, `axum` and `actix` apply a [`Guard`]. Responses do not depend on the framework:
//!
//! | request | status | challenge (`WWW-Authenticate`) |
//! |---|---|---|
//! | no credential | 401 | without an error code |
//! | a key that is not valid: malformed, unknown, revoked, expired, disabled, … | 401 | `invalid_token` |
//! | a key without a required scope | 403 | `insufficient_scope`, with the required scopes |
//! | more than one credential | 400 | `invalid_request` |
//! | a key over its rate limit | 429 | none; `Retry-After` and `RateLimit` headers |
//! | a key whose quota is used up | 429 | none; `RateLimit` headers, and `Retry-After` if the quota resets |
//! | the key cannot be checked: the key store is down | 503 | none; `Retry-After`. Never 401, because clients discard keys on 401 |
//!
//! Bodies are problem details (RFC 9457) with a stable `code`. A guard that does not accept `Authorization`
//! names its header instead: `ApiKey header="x-acme-key", realm="api"`. In a 429, the window (`t`) of a rate
//! ends when `Retry-After` says.
//!
//! With the feature `tracing`, each check is a span `api_key` with the fields `key_id`, `outcome`
//! and `cache`. With the feature `metrics`, these metrics are recorded. No label identifies a key:
//!
//! | metric | labels |
//! |---|---|
//! | `keyward_checks_total` | `outcome`: `verified`, or the [`ErrorCode`] of the rejection; `cache`: `hit` if the cache alone answered, `miss` if the store or the host was asked, or `none` if there was no lookup |
//! | `keyward_check_seconds`, a histogram | the same |
//! | `keyward_denials_total` | `reason`: the [`DeniedReason`](crate::verify::DeniedReason), which is not sent to the caller |

mod credentials;
pub(crate) mod guard;
#[cfg(feature = "leaks")]
pub mod leaks;
#[cfg(feature = "manage")]
pub mod manage;
#[cfg(feature = "openapi")]
pub mod openapi;
pub(crate) mod request;
pub(crate) mod responses;
mod telemetry;

pub use credentials::Credentials;
pub use guard::{Guard, GuardBuilder};
pub use request::{ClientIp, RequestHead};
pub use responses::{
    ErrorCode, GrpcResponses, ProblemResponses, Rejection, RejectionHandler, rate_limit_headers,
};
