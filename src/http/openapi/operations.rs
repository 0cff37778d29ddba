//! The operations of the HTTP routes, and the schemas of their bodies.

use std::collections::{BTreeMap, BTreeSet};

use http::{Method, StatusCode};
use utoipa::openapi::{
    Content, Header, HeaderBuilder, Ref, RefOr, Required, Response, ResponseBuilder,
    link::LinkBuilder,
    path::{HttpMethod, Operation, OperationBuilder, ParameterBuilder, ParameterIn},
    request_body::RequestBodyBuilder,
    schema::{
        AdditionalProperties, AllOfBuilder, AnyOfBuilder, ArrayBuilder, KnownFormat, ObjectBuilder,
        Schema, SchemaFormat, SchemaType, Type,
    },
};

use crate::{
    audit::{EventKind, ExportFormat, Outcome},
    http::{manage::Route, responses::PROBLEM_JSON},
    model::Status,
};

/// Describes a route of the management API, without the security that its callers need.
pub(super) fn management(method: &Method, path: &str, route: Route) -> Operation {
    let op = |id, summary| {
        let mut described = Described::new(id, summary).fails(400, &["repeated_credentials"]);
        if path.contains("{id}") {
            let schema = uuid();
            described = described.parameter(ParameterIn::Path, "id", "The id of the key.", schema);
            described = described.fails(404, &["not_found"]);
        }
        let is_read = *method == Method::GET || route == Route::Introspect;
        if is_read { described } else { described.writes() }
    };
    let statuses = string().enum_values(Some(Status::ALL.map(Status::as_str)));
    let described = match route {
        Route::ListKeys => op("listKeys", "Lists keys, newest first.")
            .query("status", "Only keys with this status.", statuses)
            .paged()
            .returns(200, "A page of keys.", "ApiKeyPage"),
        Route::CreateKey => {
            let mut response = json_response("The key, with its secret.", "IssuedApiKey");
            for id in ["getKey", "changeKey", "revokeKey", "rotateKey", "deleteKey"] {
                let link = LinkBuilder::new().operation_id(id);
                response = response.link(id, link.parameter("id", "$response.body#/id").build());
            }
            op("createKey", "Creates a key. Only this response contains the secret.")
                .takes_json("NewApiKey", Required::True)
                .idempotent()
                .grants_access()
                .fails(409, &["limit_reached"])
                .fails(422, &["lifetime_limit"])
                .responds(201, response)
        }
        Route::GetKey => op("getKey", "Returns a key.").returns(200, "The key.", "ApiKey"),
        Route::ChangeKey => op("changeKey", "Changes the given fields of a key, and no others.")
            .takes_json("ApiKeyChange", Required::True)
            .grants_access()
            .fails(409, &["not_live", "conflict"])
            .returns(200, "The changed key.", "ApiKey"),
        Route::RevokeKey => op("revokeKey", "Revokes a key permanently. Its record stays.")
            .returns(200, "The key is revoked, by this request or earlier.", "Message"),
        Route::DeleteKey => op("deleteKey", "Deletes a key and its record, permanently.").returns(
            200,
            "The key is deleted.",
            "Message",
        ),
        Route::RotateKey => {
            op("rotateKey", "Issues a new secret for a key. Only this response contains it.")
                .takes_json("Rotation", Required::False)
                .idempotent()
                .grants_access()
                .fails(409, &["not_live"])
                .returns(200, "The key, with its new secret.", "IssuedApiKey")
        }
        Route::DisableKey => op("disableKey", "Disables a key until it is enabled.")
            .fails(409, &["not_live", "conflict"])
            .returns(200, "The disabled key.", "ApiKey"),
        Route::EnableKey => op("enableKey", "Enables a disabled key.")
            .grants_access()
            .fails(409, &["not_live", "conflict"])
            .returns(200, "The enabled key.", "ApiKey"),
        Route::KeyEvents => op("listEventsOfKey", "Lists the audit events of a key, newest first.")
            .paged()
            .returns(200, "A page of events.", "AuditPage"),
        Route::Audit => op("listEvents", "Lists the audit events of all keys, newest first.")
            .event_filters()
            .paged()
            .returns(200, "A page of events.", "AuditPage"),
        Route::ExportAudit(format @ ExportFormat::JsonLines) => {
            op("exportEvents", "Exports the audit events as JSON Lines.")
                .returns_file(format, "One `AuditEvent` per line, newest first.")
        }
        Route::ExportAudit(format @ ExportFormat::Csv) => {
            op("exportEventsAsCsv", "Exports the audit events for a spreadsheet.").returns_file(
                format,
                "A header line, then the events, newest first. Control characters and \
                     characters that reorder text are written as `\\u{202e}`.",
            )
        }
        Route::Introspect => op(
            "introspect",
            "Returns whether a secret is valid (RFC 7662). Does not count as a use.",
        )
        .takes_body("application/x-www-form-urlencoded", "Token", Required::True)
        .fails(429, &["rate_limited"])
        .returns(200, "The state of the secret.", "Introspection"),
    };
    let text = "The caller is not authenticated. The host determines the body.";
    described.responds(401, ResponseBuilder::new().description(text)).build("api-keys")
}

/// Describes the sign-in routes, without the security of those that take a key.
pub(super) fn sign_in() -> [(HttpMethod, &'static str, Operation); 4] {
    let request_code = Described::new("requestCode", "Sends a code if there is an account.")
        .takes_json("CodeRequest", Required::True)
        .fails(429, &["rate_limited"])
        .writes()
        .returns(202, "The same, whether there is an account or not.", "Message");
    let summary = "Exchanges a code for a key. Only this response contains the secret. A code has \
                   separate attempts for the network that requested it and for all others.";
    let verify_code = Described::new("verifyCode", summary)
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
    [
        (HttpMethod::Post, "/auth/otp", request_code),
        (HttpMethod::Post, "/auth/otp/verify", verify_code),
        (HttpMethod::Get, "/auth/key", get),
        (HttpMethod::Delete, "/auth/key", revoke),
    ]
    .map(|(method, path, described)| (method, path, described.build("sign-in")))
}

/// Builds the description of an operation.
struct Described {
    operation: OperationBuilder,
    errors: ErrorCodes,
}

impl Described {
    /// Starts with the errors of every operation: the store is unavailable or corrupt, or the body is malformed or too
    /// large.
    fn new(id: &str, summary: &str) -> Self {
        let operation = OperationBuilder::new().operation_id(Some(id)).summary(Some(summary));
        Self { operation, errors: ErrorCodes::default() }
            .fails(400, &["malformed_body"])
            .fails(413, &["too_large"])
            .fails(500, &["internal"])
            .fails(503, &["unavailable"])
    }

    fn fails(mut self, status: u16, codes: &[&'static str]) -> Self {
        self.errors.entry(status).or_default().extend(codes);
        self
    }

    /// Adds the errors of a write whose outcome can be unknown.
    fn writes(self) -> Self {
        self.fails(503, &["outcome_unknown", "unconfirmed"])
    }

    /// Adds the errors of an operation that the access of caller and owner limits, and that may need a second factor.
    fn grants_access(self) -> Self {
        self.fails(403, &["beyond_reach", "second_factor_required", "suspended"])
    }

    fn parameter(self, place: ParameterIn, name: &str, text: &str, schema: ObjectBuilder) -> Self {
        let parameter = ParameterBuilder::new()
            .name(name)
            .parameter_in(place)
            // utoipa declares parameters of the path as required in any case.
            .required(Required::False)
            .description(Some(text))
            .schema(Some(schema));
        Self { operation: self.operation.parameter(parameter), ..self }
    }

    fn query(self, name: &str, text: &str, schema: ObjectBuilder) -> Self {
        self.parameter(ParameterIn::Query, name, text, schema).fails(422, &["invalid"])
    }

    fn event_filters(self) -> Self {
        self.query("event", "Only events of this kind.", event_kind())
            .query("from", "Only events at or after this instant.", instant())
            .query("until", "Only events before this instant.", instant())
    }

    fn paged(self) -> Self {
        let limit = integer().minimum(Some(1)).maximum(Some(200)).default(Some(50.into()));
        let limited = self.query("limit", "The maximum number of items on the page.", limit);
        limited.query("cursor", "The value of `next` from the previous page.", uuid())
    }

    fn idempotent(self) -> Self {
        let text = "Makes repetitions safe: send the same request and value again if the response \
                    was lost. The response then contains a new secret in place of the lost one. In \
                    the first 10 seconds, it is 409 with Retry-After. It is 422 \
                    `idempotency_key_reused` if the request differs, or if the secret was used or \
                    is gone. Valid for one day.";
        let token = string().pattern(Some("^[!-~]{1,200}$"));
        self.parameter(ParameterIn::Header, "Idempotency-Key", text, token)
            .fails(400, &["repeated_header"])
            .fails(409, &["conflict"])
            .fails(422, &["invalid", "idempotency_key_reused"])
    }

    fn takes_json(self, schema: &str, required: Required) -> Self {
        self.takes_body("application/json", schema, required)
    }

    fn takes_body(self, content_type: &str, schema: &str, required: Required) -> Self {
        let content = Content::new(Some(Ref::from_schema_name(schema)));
        let body = RequestBodyBuilder::new().content(content_type, content);
        let body = body.required(Some(required)).build();
        let described = Self { operation: self.operation.request_body(Some(body)), ..self };
        described
            .fails(400, &["repeated_header"])
            .fails(415, &["media_type"])
            .fails(422, &["invalid"])
    }

    fn returns(self, status: u16, text: &str, schema: &str) -> Self {
        self.responds(status, json_response(text, schema))
    }

    fn returns_file(self, format: ExportFormat, text: &str) -> Self {
        let media_type = format.media_type().split(';').next().unwrap_or_default();
        let attachment = string().enum_values(Some(["attachment"]));
        let disposition = header("Browsers save the response as a file.", attachment);
        let file = response(text, media_type, string()).header("Content-Disposition", disposition);
        self.event_filters().responds(200, file)
    }

    fn responds(self, status: u16, response: ResponseBuilder) -> Self {
        Self { operation: self.operation.response(status.to_string(), response), ..self }
    }

    fn build(self, tag: &str) -> Operation {
        let mut operation = self.operation.tag(tag).build();
        add_errors(&mut operation, self.errors);
        operation
    }
}

fn json_response(text: &str, schema: &str) -> ResponseBuilder {
    response(text, "application/json", Ref::from_schema_name(schema))
}

fn response(text: &str, media_type: &str, schema: impl Into<RefOr<Schema>>) -> ResponseBuilder {
    let no_store = string().enum_values(Some(["no-store"]));
    ResponseBuilder::new()
        .description(text)
        .content(media_type, Content::new(Some(schema)))
        .header("Cache-Control", header("Caches do not store the response.", no_store))
}

/// The error codes that an operation can return, by status.
pub(super) type ErrorCodes = BTreeMap<u16, BTreeSet<&'static str>>;

/// Adds the responses with these codes to an operation. If the operation already describes a response with the same
/// status, both are described as alternatives.
pub(super) fn add_errors(operation: &mut Operation, errors: ErrorCodes) {
    let all = &mut operation.responses.responses;
    for (status, codes) in errors {
        let (status, response) = (status.to_string(), error_response(status, codes));
        if let Some(RefOr::T(known)) = all.get_mut(&status) {
            merge(known, response);
        } else {
            all.insert(status, response.into());
        }
    }
}

fn error_response(status: u16, codes: BTreeSet<&str>) -> Response {
    let reason = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    let code = string().enum_values(Some(codes));
    let schema = AllOfBuilder::new()
        .item(Ref::from_schema_name(PROBLEM))
        .item(ObjectBuilder::new().property("code", code));
    let mut response = response(reason.unwrap_or_default(), PROBLEM_JSON, schema);
    if [409, 429, 503].contains(&status) {
        let wait = header("Try again after this many seconds.", integer().minimum(Some(1)));
        response = response.header("Retry-After", wait);
    }
    response.build()
}

fn merge(existing: &mut Response, response: Response) {
    for (name, header) in response.headers {
        existing.headers.entry(name).or_insert(header);
    }
    for (media_type, content) in response.content {
        match (existing.content.get_mut(&media_type), content) {
            (Some(RefOr::T(known)), RefOr::T(content)) => {
                let alternatives = known.schema.take().into_iter().chain(content.schema);
                let any_of = alternatives.fold(AnyOfBuilder::new(), AnyOfBuilder::item);
                known.schema = Some(any_of.into());
            }
            (_, content) => {
                existing.content.insert(media_type, content);
            }
        }
    }
}

pub(super) fn header(text: &str, schema: ObjectBuilder) -> Header {
    HeaderBuilder::new().schema(Some(schema.build())).description(Some(text)).build()
}

/// A schema with the name by which operations refer to it.
pub(super) type NamedSchema = (&'static str, ObjectBuilder);

/// Returns the schemas of the management API.
pub(super) fn management_schemas() -> [NamedSchema; 8] {
    let at = instant().description(Some(
        "An instant in the future. Excludes `expiresInDays`. Without \
        both, the service decides: by default, the key does not expire.",
    ));
    let new_key = changeable(object("The key to create.").required(["name"], name()))
        .optional(["expiresAt"], at)
        .optional(["expiresInDays"], integer().minimum(Some(1)).maximum(Some(u32::MAX)));
    let change = object("The fields to change. Omitted fields stay as they are.");
    let seconds = integer().minimum(Some(0)).maximum(Some(u32::MAX)).default(Some(0.into()));
    let seconds = seconds.description(Some("How long the previous secret stays valid."));
    let rotation = object("The options of a rotation.").optional(["overlapSeconds"], seconds);
    let event = object("An event of the audit log.")
        .required(["id"], uuid())
        .required(["time"], instant())
        .required(["event"], event_kind())
        .required(["result"], string().enum_values(Some(Outcome::ALL.map(Outcome::as_str))))
        .required(["keyId"], or_null(uuid()))
        .required(["actor"], string())
        .required(["account", "ip", "userAgent", "reason"], or_null(string()))
        .required(["count"], integer().minimum(Some(1)));
    let introspection = "The state of a secret. If the secret is not valid, or belongs to another \
                         owner, the only field is `active`. Rates and quotas do not matter.";
    let exp = "When the secret ends: the expiry of the key, or an earlier end of the overlap if a \
               rotation replaced the secret.";
    let introspection = object(introspection)
        .required(["active"], ObjectBuilder::new().schema_type(Type::Boolean))
        .optional(["scope", "sub", "token_type"], string())
        .optional(["client_id"], uuid())
        .optional(["iat"], integer())
        .optional(["exp"], integer().description(Some(exp)));
    let address = "The address of the client that presented the secret. If given, a key that is \
                   restricted to networks is active only if one of them contains the address.";
    let token = ObjectBuilder::new()
        .property("token", string().description(Some("The secret.")))
        .property("client_ip", string().description(Some(address)))
        .required("token");
    let damaged =
        "The ids of keys on this page whose records are damaged. Omitted if there are none.";
    let damaged = ArrayBuilder::new().items(uuid()).description(Some(damaged));
    [
        ("ApiKeyChange", changeable(change.optional(["name"], name())).0),
        ("ApiKeyPage", page("keys", "ApiKey").optional(["damaged"], damaged).0),
        ("AuditEvent", event.0),
        ("AuditPage", page("events", "AuditEvent").0),
        ("Introspection", introspection.0),
        ("NewApiKey", new_key.0),
        ("Rotation", rotation.0),
        // Allows other fields, as RFC 7662 requires.
        ("Token", token),
    ]
}

/// Returns the schemas of the sign-in routes.
pub(super) fn sign_in_schemas() -> [NamedSchema; 2] {
    // ASCII only, without quoted local parts and comments.
    let email = || {
        string().format(Some(SchemaFormat::KnownFormat(KnownFormat::Email))).max_length(Some(254))
    };
    let code = string().description(Some("The six digits from the e-mail."));
    let code_request = object("The address to send a code to.").required(["email"], email());
    let presented_code = object("A code, and the address it was sent to.")
        .required(["email"], email())
        .required(["code"], code);
    [("CodeRequest", code_request.0), ("PresentedCode", presented_code.0)]
}

/// Returns the schemas that both documents contain.
pub(super) fn common_schemas() -> [NamedSchema; 5] {
    let last_used = or_null(instant()).description(Some("`null` until the first use."));
    let secret = string().description(Some("The secret. No other response contains it."));
    let retiring =
        object("The previous secret, which is valid until the overlap of the rotation ends.")
            .required(["prefix"], string())
            .required(["endsAt"], instant());
    [
        ("ApiKey", key("A key, without its secret.").required(["lastUsedAt"], last_used).0),
        ("IssuedApiKey", key("A key with its new secret.").required(["key"], secret).0),
        ("Message", object("A message for people.").required(["message"], string()).0),
        (PROBLEM, problem()),
        ("RetiringSecret", retiring.0),
    ]
}

/// Problem details (RFC 9457), with a stable code.
pub(crate) fn problem() -> ObjectBuilder {
    let limit = "The limit of the plan that was reached: active keys, or days of lifetime.";
    let max_age = "The maximum age of the second factor, in seconds.";
    object("An error (RFC 9457). Programs use `code`.")
        .required(["type", "title"], string())
        .required(["status"], integer().minimum(Some(400)).maximum(Some(599)))
        .required(["code"], string().description(Some("Stable.")))
        .required(["detail"], string().description(Some("For people; may change.")))
        .optional(["limit"], integer().description(Some(limit)))
        .optional(["maxAge"], integer().description(Some(max_age)))
        .0
}

/// Builds an object with the fields that `ApiKey` and `IssuedApiKey` share.
fn key(text: &str) -> ClosedObject {
    let prefix = "The beginning of the secret, which may be displayed.";
    let account = "The account that owns the key; only for administrators.";
    let scopes = "What the key may do, within the permissions of its owner. `null`: all that its owner may do.";
    let scopes = ArrayBuilder::new()
        .schema_type(SchemaType::from_iter([Type::Array, Type::Null]))
        .items(string())
        .description(Some(scopes));
    let expires = or_null(instant()).description(Some("`null`: the key does not expire."));
    object(text)
        .required(["id"], uuid())
        .required(["name"], string())
        .required(["prefix"], string().description(Some(prefix)))
        .required(["createdAt"], instant())
        .optional(["account"], string().description(Some(account)))
        .required(["scopes"], scopes)
        .required(["expiresAt"], expires)
        .optional(["allowedNetworks"], ArrayBuilder::new().items(string()))
        .optional(["metadata"], ObjectBuilder::new().additional_properties(Some(string())))
        .optional(["disabledAt", "revokedAt", "rotatedAt"], instant())
        .optional(["retiring"], Ref::from_schema_name("RetiringSecret"))
        .optional(["lastUsedIp"], string())
}

/// Adds the optional fields that `NewApiKey` and `ApiKeyChange` share.
fn changeable(object: ClosedObject) -> ClosedObject {
    let scope = string().pattern(Some(r"^[!#-\[\]-~]{1,100}$"));
    let text = "What the key may do. An empty list means nothing. A new key without it may do \
                everything that its owner may do, unless the service requires it.";
    let scopes = ArrayBuilder::new().items(scope).max_items(Some(200)).description(Some(text));
    let text =
        "The networks from which the key may be used, for example `192.0.2.0/24` or `2001:db8::1`.";
    let networks = ArrayBuilder::new().items(string()).max_items(Some(100)).description(Some(text));
    let metadata_key = string().pattern(Some(r"^[^\x00]{1,64}$")).build();
    let metadata_value = string().max_length(Some(1_000)).pattern(Some(r"^[^\x00]*$"));
    let metadata = ObjectBuilder::new()
        .property_names(Some(Schema::Object(metadata_key)))
        .additional_properties(Some(metadata_value))
        .max_properties(Some(50));
    object
        .optional(["scopes"], scopes)
        .optional(["allowedNetworks"], networks)
        .optional(["metadata"], metadata)
}

fn page(items: &str, of: &str) -> ClosedObject {
    let next = uuid().description(Some("The `cursor` of the next page. Omitted on the last page."));
    object("A page of items, newest first.")
        .required([items], ArrayBuilder::new().items(Ref::from_schema_name(of)))
        .optional(["next"], next)
}

fn name() -> ObjectBuilder {
    // At least one character that is not a space, and no NUL.
    let pattern = r"^[^\x00]*[^\s\x00][^\x00]*$";
    string().min_length(Some(1)).max_length(Some(100)).pattern(Some(pattern))
}

fn uuid() -> ObjectBuilder {
    string().format(Some(SchemaFormat::Custom("uuid".into())))
}

fn instant() -> ObjectBuilder {
    string().format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
}

fn event_kind() -> ObjectBuilder {
    string().enum_values(Some(EventKind::ALL.map(EventKind::as_str)))
}

pub(super) fn string() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

fn integer() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Integer)
}

fn or_null(text: ObjectBuilder) -> ObjectBuilder {
    text.schema_type(SchemaType::from_iter([Type::String, Type::Null]))
}

/// Builds an object schema without additional properties.
struct ClosedObject(ObjectBuilder);

fn object(text: &str) -> ClosedObject {
    let closed = AdditionalProperties::FreeForm(false);
    ClosedObject(ObjectBuilder::new().description(Some(text)).additional_properties(Some(closed)))
}

impl ClosedObject {
    /// Adds required properties with the same schema.
    fn required<const N: usize>(self, names: [&str; N], schema: impl Into<RefOr<Schema>>) -> Self {
        let object = self.optional(names, schema).0;
        Self(names.into_iter().fold(object, ObjectBuilder::required))
    }

    /// Adds optional properties with the same schema.
    fn optional<const N: usize>(self, names: [&str; N], schema: impl Into<RefOr<Schema>>) -> Self {
        let schema = schema.into();
        Self(names.into_iter().fold(self.0, |object, name| object.property(name, schema.clone())))
    }
}

pub(crate) const PROBLEM: &str = "Problem";
