use utoipa::openapi::{
    ComponentsBuilder, InfoBuilder, OpenApi, OpenApiBuilder, Paths, Required,
    path::{HttpMethod, Operation},
};

use super::{operations::Described, schemas};
use crate::http::{Guard, manage::SignIn};

/// The routes by which people sign in who have no session, relative to where they are mounted.
///
/// # Examples
/// ```
/// # fn example(sign_in: &keyward::http::manage::SignIn) {
/// use keyward::http::openapi::sign_in_document;
/// use utoipa::openapi::OpenApi;
///
/// let of_the_host = OpenApi::default();
/// let whole = of_the_host.nest("/v1", sign_in_document(sign_in));
/// assert!(whole.paths.get_path_item("/v1/auth/otp").is_some());
/// # }
/// ```
pub fn sign_in_document(sign_in: &SignIn) -> OpenApi {
    let guard = sign_in.guard();
    let mut paths = Paths::new();
    for (method, path, operation) in operations(guard) {
        paths.add_path_operation(path, vec![method], operation);
    }
    let components = schemas::of_signing_in()
        .into_iter()
        .fold(ComponentsBuilder::new(), |all, (name, schema)| all.schema(name, schema));
    let components = guard
        .security_schemes()
        .into_iter()
        .fold(components, |all, (name, scheme)| all.security_scheme(name, scheme));
    let info = InfoBuilder::new()
        .title("Signing in")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some("By which people without a session get an API key."));
    OpenApiBuilder::new().info(info).paths(paths).components(Some(components.build())).build()
}

fn operations(guard: &Guard) -> [(HttpMethod, &'static str, Operation); 4] {
    let ask = Described::new("requestCode", "Has a code sent, if there is an account.")
        .takes("CodeRequest", Required::True)
        .refuses(429, &["rate_limited"])
        .changes()
        .answers(202, "The same, whether there is an account or not.", "Message");
    let present = Described::new("verifyCode", "Turns a code into a key, shown this once.")
        .takes("PresentedCode", Required::True)
        .refuses(400, &["invalid_code", "expired_code"])
        .limited()
        .refuses(409, &["limit_reached"])
        .refuses(422, &["lifetime_limit"])
        .refuses(429, &["rate_limited"])
        .changes()
        .answers(201, "The key, with its secret.", "IssuedApiKey");
    let show = Described::new("getOwnKey", "The key that it is called with.")
        .answers(200, "The key.", "ApiKey");
    let revoke = Described::new("revokeOwnKey", "Revokes the key that it is called with.")
        .refuses(404, &["not_found"])
        .changes()
        .answers(200, "It is revoked.", "Message");
    // Whatever the host asks for elsewhere.
    let by_anyone = |described: Described| {
        let mut operation = described.build(TAG);
        operation.security = Some(Vec::new());
        operation
    };
    let by_key = |described: Described| {
        let mut operation = described.build(TAG);
        guard.describe(&mut operation);
        operation
    };
    [
        (HttpMethod::Post, "/auth/otp", by_anyone(ask)),
        (HttpMethod::Post, "/auth/otp/verify", by_anyone(present)),
        (HttpMethod::Get, "/auth/key", by_key(show)),
        (HttpMethod::Delete, "/auth/key", by_key(revoke)),
    ]
}

const TAG: &str = "sign-in";
