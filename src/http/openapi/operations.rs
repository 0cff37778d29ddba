use utoipa::openapi::{
    ComponentsBuilder, ContentBuilder, InfoBuilder, OpenApi, OpenApiBuilder, Paths, Ref, RefOr,
    Required, ResponseBuilder, Schema,
    link::LinkBuilder,
    path::{HttpMethod, Operation, OperationBuilder, ParameterBuilder, ParameterIn},
    request_body::RequestBodyBuilder,
    schema::{ObjectBuilder, Type},
    security::{SecurityRequirement, SecurityScheme},
};

use super::schemas::{self, ErrorResponses, header, no_store_header, string};
use crate::{
    audit::ExportFormat,
    http::{
        guard::Guard,
        manage::{
            SignIn,
            routes::{ROUTES, Route},
        },
    },
};

/// How callers of the management API authenticate: what the host's extractor accepts.
#[derive(Clone)]
pub struct CallerAuth {
    schemes: Vec<(String, SecurityScheme)>,
    guard: Option<Guard>,
}

impl CallerAuth {
    /// Callers authenticate by a scheme of the host, under this name in the document: for example a
    /// cookie, or a token of another system.
    pub fn scheme(name: &str, scheme: SecurityScheme) -> Self {
        Self { schemes: vec![(name.into(), scheme)], guard: None }
    }

    /// Callers authenticate by an API key: this guard is in front of the router.
    pub fn api_key(guard: &Guard) -> Self {
        Self { schemes: Vec::new(), guard: Some(guard.clone()) }
    }

    fn security_schemes(&self) -> impl Iterator<Item = (String, SecurityScheme)> {
        let of_guard = self.guard.iter().flat_map(Guard::security_schemes);
        self.schemes.iter().cloned().chain(of_guard)
    }

    fn describe(&self, operation: &mut Operation) {
        if let Some(guard) = &self.guard {
            guard.describe(operation);
        }
        for (name, _) in &self.schemes {
            let requirement = SecurityRequirement::new(name, [""; 0]);
            operation.security.get_or_insert_default().push(requirement);
        }
    }
}

impl std::fmt::Debug for CallerAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.security_schemes().map(|(name, _)| name).collect();
        f.debug_tuple("CallerAuth").field(&names).finish()
    }
}

/// Returns the document of the management API, relative to where it is mounted.
///
/// # Examples
/// ```
/// use keyward::http::openapi::{CallerAuth, document};
/// use utoipa::openapi::{OpenApi, security::{ApiKey, ApiKeyValue, SecurityScheme}};
///
/// let cookie = SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::new("session")));
/// let of_the_host = OpenApi::default();
/// let whole = of_the_host.nest("/v1", document(&CallerAuth::scheme("session", cookie)));
/// assert!(whole.paths.get_path_item("/v1/api-keys/{id}").is_some());
/// ```
pub fn document(callers: &CallerAuth) -> OpenApi {
    let mut paths = Paths::new();
    for (method, path, route) in &ROUTES {
        let operation = management_operation(*route, callers);
        paths.add_path_operation(path, vec![http_method(method)], operation);
    }
    let info = ("API keys", "Lets users manage their own API keys.");
    build_document(info, paths, schemas::management(), callers.security_schemes())
}

/// Returns the document of the [sign-in routes](SignIn), relative to where they are mounted.
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
    for (method, path, operation) in sign_in_operations(guard) {
        paths.add_path_operation(path, vec![method], operation);
    }
    let info = ("Sign-in", "Lets people without a session get an API key by e-mail.");
    build_document(info, paths, schemas::sign_in(), guard.security_schemes())
}

/// Returns the schema that the error responses of [`Guard::describe`] refer to.
#[cfg(feature = "axum-openapi")]
pub(crate) fn problem_schema() -> (String, RefOr<Schema>) {
    (schemas::PROBLEM.into(), schemas::problem().into())
}

fn build_document(
    (title, description): (&str, &str),
    paths: Paths,
    schemas: Vec<(&str, RefOr<Schema>)>,
    security: impl IntoIterator<Item = (String, SecurityScheme)>,
) -> OpenApi {
    let components = schemas
        .into_iter()
        .fold(ComponentsBuilder::new(), |all, (name, schema)| all.schema(name, schema));
    let components = security
        .into_iter()
        .fold(components, |all, (name, scheme)| all.security_scheme(name, scheme));
    let info = InfoBuilder::new()
        .title(title)
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(description));
    OpenApiBuilder::new().info(info).paths(paths).components(Some(components.build())).build()
}

/// Covers the methods in [`ROUTES`]. A test fails if a route with another method is added.
fn http_method(method: &http::Method) -> HttpMethod {
    match *method {
        http::Method::POST => HttpMethod::Post,
        http::Method::PATCH => HttpMethod::Patch,
        http::Method::DELETE => HttpMethod::Delete,
        _ => HttpMethod::Get,
    }
}

fn management_operation(route: Route, callers: &CallerAuth) -> Operation {
    let described = match route {
        Route::ListKeys => Described::new("listKeys", "Lists keys, newest first.")
            .query("status", "Only keys with this status.", schemas::status())
            .paged()
            .returns(200, "A page of keys.", "ApiKeyPage"),
        Route::CreateKey => {
            Described::new("createKey", "Creates a key. Only this response contains the secret.")
                .takes_json("NewApiKey", Required::True)
                .idempotent()
                .grants_access()
                .fails(409, &["limit_reached"])
                .fails(422, &["lifetime_limit"])
                .writes()
                .returns(201, "The key, with its secret.", "IssuedApiKey")
                .links_to(&["getKey", "changeKey", "revokeKey", "rotateKey", "deleteKey"])
        }
        Route::GetKey => Described::new("getKey", "Returns a key.")
            .takes_key_id()
            .returns(200, "The key.", "ApiKey"),
        Route::ChangeKey => {
            Described::new("changeKey", "Changes the given fields of a key, and no others.")
                .takes_key_id()
                .takes_json("ApiKeyChange", Required::True)
                .grants_access()
                .fails(409, &["not_live", "conflict"])
                .writes()
                .returns(200, "The changed key.", "ApiKey")
        }
        Route::RevokeKey => {
            Described::new("revokeKey", "Revokes a key permanently. Its record stays.")
                .takes_key_id()
                .writes()
                .returns(200, "The key is revoked, by this request or earlier.", "Message")
        }
        Route::DeleteKey => Described::new("deleteKey", "Deletes a key and its record.")
            .takes_key_id()
            .writes()
            .returns(200, "The key is deleted.", "Message"),
        Route::RotateKey => Described::new(
            "rotateKey",
            "Issues a new secret for a key. Only this response contains it.",
        )
        .takes_key_id()
        .takes_json("Rotation", Required::False)
        .idempotent()
        .grants_access()
        .fails(409, &["not_live"])
        .writes()
        .returns(200, "The key, with its new secret.", "IssuedApiKey"),
        Route::DisableKey => Described::new("disableKey", "Disables a key until it is enabled.")
            .takes_key_id()
            .fails(409, &["not_live", "conflict"])
            .writes()
            .returns(200, "The disabled key.", "ApiKey"),
        Route::EnableKey => Described::new("enableKey", "Enables a disabled key.")
            .takes_key_id()
            .grants_access()
            .fails(409, &["not_live", "conflict"])
            .writes()
            .returns(200, "The enabled key.", "ApiKey"),
        Route::KeyEvents => {
            Described::new("listEventsOfKey", "Lists the audit events of a key, newest first.")
                .takes_key_id()
                .paged()
                .returns(200, "A page of events.", "AuditPage")
        }
        Route::Audit => {
            Described::new("listEvents", "Lists the audit events of all keys, newest first.")
                .event_filters()
                .paged()
                .returns(200, "A page of events.", "AuditPage")
        }
        Route::AuditJsonLines => {
            Described::new("exportEvents", "Exports the audit events as JSON Lines.")
                .event_filters()
                .returns_file(ExportFormat::JsonLines, "One `AuditEvent` per line, newest first.")
        }
        Route::AuditCsv => {
            Described::new("exportEventsAsCsv", "Exports the audit events for a spreadsheet.")
                .event_filters()
                .returns_file(
                    ExportFormat::Csv,
                    "A header line, then one `AuditEvent` per line, newest first.",
                )
        }
        Route::Introspect => {
            Described::new("introspect", "Returns whether a secret is valid (RFC 7662).")
                .takes_form("Token")
                .fails(429, &["rate_limited", "quota_exhausted"])
                .returns(200, "The state of the secret.", "Introspection")
        }
    };
    let text = "The caller is not authenticated. The host determines the body.";
    let unauthenticated = ResponseBuilder::new().description(text).build();
    let mut operation = described.build("api-keys");
    operation.responses.responses.insert("401".into(), unauthenticated.into());
    callers.describe(&mut operation);
    operation
}

fn sign_in_operations(guard: &Guard) -> [(HttpMethod, &'static str, Operation); 4] {
    const TAG: &str = "sign-in";
    let request_code = Described::new("requestCode", "Sends a code if there is an account.")
        .takes_json("CodeRequest", Required::True)
        .fails(429, &["rate_limited"])
        .writes()
        .returns(202, "The same, whether there is an account or not.", "Message");
    let verify_code = Described::new(
        "verifyCode",
        "Exchanges a code for a key. Only this response contains the secret.",
    )
    .takes_json("PresentedCode", Required::True)
    .fails(400, &["invalid_code", "expired_code"])
    .grants_access()
    .fails(409, &["limit_reached"])
    .fails(422, &["lifetime_limit"])
    .fails(429, &["rate_limited"])
    .writes()
    .returns(201, "The key, with its secret.", "IssuedApiKey");
    let get = Described::new("getOwnKey", "Returns the key that the request presents.")
        .returns(200, "The key.", "ApiKey");
    let revoke = Described::new("revokeOwnKey", "Revokes the key that the request presents.")
        .fails(404, &["not_found"])
        .writes()
        .returns(200, "The key is revoked.", "Message");
    // An empty list overrides the security of the host's document.
    let public = |described: Described| {
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
        (HttpMethod::Post, "/auth/otp", public(request_code)),
        (HttpMethod::Post, "/auth/otp/verify", public(verify_code)),
        (HttpMethod::Get, "/auth/key", by_key(get)),
        (HttpMethod::Delete, "/auth/key", by_key(revoke)),
    ]
}

/// Builds the description of an operation.
struct Described {
    operation: OperationBuilder,
    errors: ErrorResponses,
    response: ResponseBuilder,
    status: u16,
}

impl Described {
    /// Starts with the errors that every operation can return: the store is unavailable or corrupt,
    /// or the body is too large.
    fn new(id: &str, summary: &str) -> Self {
        let errors = ErrorResponses::default()
            .with(413, &["too_large"])
            .with(500, &["internal"])
            .with(503, &["unavailable"]);
        Self {
            operation: OperationBuilder::new().operation_id(Some(id)).summary(Some(summary)),
            errors,
            response: ResponseBuilder::new(),
            status: 200,
        }
    }

    fn fails(self, status: u16, codes: &[&'static str]) -> Self {
        Self { errors: self.errors.with(status, codes), ..self }
    }

    /// Adds the errors of a write whose outcome can be unknown.
    fn writes(self) -> Self {
        self.fails(503, &["outcome_unknown", "unconfirmed"])
    }

    /// Adds the errors of an operation that is limited by the access of the caller and of the owner,
    /// and may require a second factor.
    fn grants_access(self) -> Self {
        self.fails(403, &["beyond_reach", "second_factor_required", "suspended"])
    }

    fn takes_key_id(self) -> Self {
        let id = ParameterBuilder::new()
            .name("id")
            .parameter_in(ParameterIn::Path)
            .required(Required::True)
            .schema(Some(schemas::uuid()));
        self.with_parameter(id).fails(404, &["not_found"])
    }

    fn query(self, name: &str, text: &str, schema: ObjectBuilder) -> Self {
        let parameter = ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Query)
            .required(Required::False)
            .description(Some(text))
            .schema(Some(schema));
        self.with_parameter(parameter).fails(422, &["invalid"])
    }

    fn event_filters(self) -> Self {
        self.query("event", "Only events of this kind.", schemas::event_kind())
            .query("from", "Only events at or after this instant.", schemas::instant())
            .query("until", "Only events before this instant.", schemas::instant())
    }

    fn paged(self) -> Self {
        let limit = ObjectBuilder::new()
            .schema_type(Type::Integer)
            .minimum(Some(1))
            .maximum(Some(200))
            .default(Some(50.into()));
        self.query("limit", "The maximum number of items on the page.", limit).query(
            "cursor",
            "The value of `next` from the previous page.",
            schemas::uuid(),
        )
    }

    fn idempotent(self) -> Self {
        let token = ParameterBuilder::new()
            .name("Idempotency-Key")
            .parameter_in(ParameterIn::Header)
            .required(Required::False)
            .description(Some(
                "Makes retries safe: send the same value again if the response was lost. Valid for \
                 one day.",
            ))
            .schema(Some(string().pattern(Some("^[!-~]{1,200}$"))));
        self.with_parameter(token)
            .fails(409, &["conflict"])
            .fails(422, &["invalid", "idempotency_key_reused"])
    }

    fn takes_json(self, schema: &str, required: Required) -> Self {
        self.takes_body("application/json", schema, required)
            .fails(400, &["malformed_body"])
            .fails(422, &["invalid"])
    }

    fn takes_form(self, schema: &str) -> Self {
        self.takes_body("application/x-www-form-urlencoded", schema, Required::True)
            .fails(422, &["invalid"])
    }

    fn takes_body(self, content_type: &str, schema: &str, required: Required) -> Self {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(schema))).build();
        let body =
            RequestBodyBuilder::new().content(content_type, content).required(Some(required));
        let operation = self.operation.request_body(Some(body.build()));
        Self { operation, ..self }.fails(415, &["media_type"])
    }

    fn with_parameter(self, parameter: ParameterBuilder) -> Self {
        Self { operation: self.operation.parameter(parameter), ..self }
    }

    fn returns(self, status: u16, text: &str, schema: &str) -> Self {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(schema))).build();
        let response = ResponseBuilder::new()
            .description(text)
            .content("application/json", content)
            .header("Cache-Control", no_store_header());
        Self { response, status, ..self }
    }

    fn returns_file(self, format: ExportFormat, text: &str) -> Self {
        let media_type = format.media_type().split(';').next().unwrap_or_default();
        let content = ContentBuilder::new().schema(Some(string())).build();
        let attachment = string().enum_values(Some(["attachment"]));
        let disposition = header("Browsers save the response as a file.", attachment.build());
        let response = ResponseBuilder::new()
            .description(text)
            .content(media_type, content)
            .header("Cache-Control", no_store_header())
            .header("Content-Disposition", disposition);
        Self { response, status: 200, ..self }
    }

    /// Links the `id` in the response to the `id` parameter of these operations.
    fn links_to(self, operations: &[&str]) -> Self {
        let link = |id: &str| {
            LinkBuilder::new().operation_id(id).parameter("id", "$response.body#/id").build()
        };
        let response = operations.iter().fold(self.response, |all, id| all.link(*id, link(id)));
        Self { response, ..self }
    }

    fn build(self, tag: &str) -> Operation {
        let response = self.response.build();
        let operation = self.operation.tag(tag).response(self.status.to_string(), response);
        let mut operation = operation.build();
        self.errors.add_to(&mut operation, &[]);
        operation
    }
}
