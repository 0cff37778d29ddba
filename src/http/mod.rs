//! What all web frameworks share: where a secret stands in a request, whose address it came from,
//! and how it is answered.
//!
//! The adapters `tower`, `axum` and `actix` take a [`Guard`] and do what it says. Whatever the
//! framework, the same request gets the same answer:
//!
//! | what a request presents | status | challenge |
//! |---|---|---|
//! | nothing | 401 | without an error |
//! | what is no live key: malformed, unknown, revoked, expired, disabled, … | 401 | `invalid_token` |
//! | a key that may not do this | 403 | `insufficient_scope` with the scopes |
//! | more than one credential | 400 | `invalid_request` |
//! | a key that comes too often | 429 | `Retry-After`, and `RateLimit` fields |
//! | a key whose quota is used up | 429 | the same; `Retry-After` only if it begins anew |
//! | anything, while nobody can tell | 503 | `Retry-After`; never a 401, on which clients throw keys away |
//!
//! Bodies are problems as RFC 9457 has them, with a stable `code`.
//!
//! With the feature `tracing`, each check is a span `api_key` with `key_id`, `outcome` and `cache`.
//! With the feature `metrics`, these are counted, in all and never by key:
//!
//! | metric | labels |
//! |---|---|
//! | `keyward_checks_total` | `outcome`: `verified` or the [`ErrorCode`] of the refusal; `cache`: `hit`, `miss`, or `none` if nothing was looked up |
//! | `keyward_check_seconds`, a histogram | the same |
//! | `keyward_denials_total` | `reason`: the [`DeniedReason`](crate::verify::DeniedReason), which the caller is not told |

mod answers;
mod client_ip;
mod credentials;
pub(crate) mod guard;
pub(crate) mod incoming;
#[cfg(feature = "leaks")]
pub mod leaks;
#[cfg(feature = "manage")]
pub mod manage;
#[cfg(feature = "openapi")]
pub mod openapi;
mod tenant_path;
mod watch;

pub use answers::{RejectionHandler, ErrorCode, GrpcResponses, ProblemResponses, Rejection, rate_limit_headers};
#[cfg(any(feature = "leaks", feature = "manage"))]
pub(crate) use answers::{PROBLEM_JSON, problem};
pub use client_ip::ClientIp;
pub use credentials::Credentials;
pub use guard::Guard;
pub use incoming::RequestHead;
