//! OpenAPI 3.1 documents for the HTTP routes of this crate.
//!
//! [`document`] describes the management API, with every error it returns, and [`sign_in_document`]
//! the sign-in routes. [`Guard::describe`] adds to any operation what a guard in front of it requires
//! and returns. All are generated from the code that serves requests, the route table and the rules
//! of the guard, so that they cannot disagree with it.
//!
//! With axum and the feature `axum-openapi`, `axum::openapi` adds a route and its description to a
//! router in one step.

mod guard;
mod operations;
mod schemas;

#[cfg(doc)]
use super::guard::Guard;
#[cfg(feature = "axum-openapi")]
pub(crate) use operations::problem_schema;
pub use operations::{CallerAuth, document, sign_in_document};
