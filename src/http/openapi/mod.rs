//! What the HTTP half does, as a document of OpenAPI 3.1.
//!
//! [`document`] describes the management API, with every error it answers, and [`sign_in_document`] the
//! routes by which people sign in. [`Guard::describe`] says
//! of any operation what a guard in front of it asks for and answers. Both are made from what is
//! served, the table of routes and the rules of the guard, so they say what is true of it.
//!
//! With axum and the feature `axum-openapi`, `axum::openapi` puts a route and its description into a router in one step.

mod answers;
mod callers;
mod guard;
mod operations;
mod schemas;
mod sign_in;

use utoipa::openapi::{
    ComponentsBuilder, InfoBuilder, OpenApi, OpenApiBuilder, Paths, path::HttpMethod,
};

pub use callers::CallerAuth;
pub use sign_in::sign_in_document;

#[cfg(doc)]
use super::Guard;
use super::manage::route::ROUTES;

/// The management API, relative to where it is mounted, for callers who say so who they are.
///
/// # Examples
/// ```
/// use keyward::http::openapi::{CallerAuth, document};
/// use utoipa::openapi::{OpenApi, security::{ApiKey, ApiKeyValue, SecurityScheme}};
///
/// let cookie = SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::new("session")));
/// let of_the_host = OpenApi::default();
/// let whole = of_the_host.nest("/v1", document(&CallerAuth::by("session", cookie)));
/// assert!(whole.paths.get_path_item("/v1/api-keys/{id}").is_some());
/// ```
pub fn document(callers: &CallerAuth) -> OpenApi {
    let mut paths = Paths::new();
    for (method, path, route) in &ROUTES {
        let operation = operations::describe(*route, callers);
        paths.add_path_operation(path, vec![documented(method)], operation);
    }
    let components = schemas::all()
        .into_iter()
        .fold(ComponentsBuilder::new(), |all, (name, schema)| all.schema(name, schema));
    let components =
        callers.schemes().fold(components, |all, (name, scheme)| all.security_scheme(name, scheme));
    let info = InfoBuilder::new()
        .title("API keys")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some("By which people manage their own API keys."));
    OpenApiBuilder::new().info(info).paths(paths).components(Some(components.build())).build()
}

/// The schema that the refusals of a guard refer to.
#[cfg(feature = "axum-openapi")]
pub(crate) fn problem() -> (String, utoipa::openapi::RefOr<utoipa::openapi::Schema>) {
    (schemas::PROBLEM.into(), schemas::problem().into())
}

/// The methods of the routes; a route of another one would not be described, which a test sees.
fn documented(method: &http::Method) -> HttpMethod {
    match *method {
        http::Method::POST => HttpMethod::Post,
        http::Method::PATCH => HttpMethod::Patch,
        http::Method::DELETE => HttpMethod::Delete,
        _ => HttpMethod::Get,
    }
}
