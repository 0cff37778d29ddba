//! Schemas of bodies, and the error responses built from them.

use std::collections::{BTreeMap, BTreeSet};

use http::StatusCode;
use utoipa::openapi::{
    ContentBuilder, Header, HeaderBuilder, Ref, RefOr, Response, ResponseBuilder,
    path::Operation,
    schema::{
        AdditionalProperties, AllOfBuilder, AnyOfBuilder, ArrayBuilder, KnownFormat, ObjectBuilder,
        Schema, SchemaFormat, SchemaType, Type,
    },
};

use crate::{audit::EventKind, http::responses::PROBLEM_JSON, model::Status};

/// The error codes that an operation can return, by status.
#[derive(Default)]
pub(super) struct ErrorResponses(BTreeMap<u16, BTreeSet<&'static str>>);

impl ErrorResponses {
    pub(super) fn with(mut self, status: u16, codes: &[&'static str]) -> Self {
        self.0.entry(status).or_default().extend(codes);
        self
    }

    /// Adds the responses to an operation, with the headers (name and description) of each status.
    /// If the operation already describes a response with the same status, both are described as
    /// alternatives.
    pub(super) fn add_to(
        self,
        operation: &mut Operation,
        headers: impl Fn(u16) -> &'static [(&'static str, &'static str)],
    ) {
        for (status, codes) in self.0 {
            let response = error_response(status, codes, headers(status));
            let all = &mut operation.responses.responses;
            match all.get_mut(&status.to_string()) {
                Some(RefOr::T(existing)) => merge(existing, response),
                _ => {
                    all.insert(status.to_string(), RefOr::T(response));
                }
            }
        }
    }
}

fn error_response(status: u16, codes: BTreeSet<&str>, headers: &[(&str, &str)]) -> Response {
    let reason = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    let code = string().enum_values(Some(codes));
    let schema = AllOfBuilder::new()
        .item(Ref::from_schema_name(PROBLEM))
        .item(ObjectBuilder::new().property("code", code));
    let mut response = ResponseBuilder::new()
        .description(reason.unwrap_or_default())
        .content(PROBLEM_JSON, ContentBuilder::new().schema(Some(schema)).build())
        .header("Cache-Control", no_store_header());
    if [409, 429, 503].contains(&status) {
        let wait = header("Try again after this many seconds.", integer().minimum(Some(1)));
        response = response.header("Retry-After", wait);
    }
    for (name, text) in headers {
        response = response.header(*name, header(text, string()));
    }
    response.build()
}

fn merge(existing: &mut Response, response: Response) {
    for (name, header) in response.headers {
        existing.headers.entry(name).or_insert(header);
    }
    for (media_type, content) in response.content {
        let Some(RefOr::T(known)) = existing.content.get_mut(&media_type) else {
            existing.content.insert(media_type, content);
            continue;
        };
        if let RefOr::T(content) = content {
            let alternatives = known.schema.take().into_iter().chain(content.schema);
            let any_of = alternatives.fold(AnyOfBuilder::new(), AnyOfBuilder::item);
            known.schema = Some(RefOr::T(Schema::AnyOf(any_of.build())));
        }
    }
}

pub(super) fn no_store_header() -> Header {
    header("Caches do not store the response.", string().enum_values(Some(["no-store"])))
}

pub(super) fn header(text: &str, schema: ObjectBuilder) -> Header {
    HeaderBuilder::new().schema(Some(schema.build())).description(Some(text)).build()
}

/// Schemas with the names by which operations refer to them.
pub(super) type NamedSchemas = Vec<(&'static str, RefOr<Schema>)>;

/// Returns the schemas of the management API.
pub(super) fn management() -> NamedSchemas {
    let days = integer().minimum(Some(1)).maximum(Some(u32::MAX));
    let at = instant().description(Some("An instant in the future. Excludes `expiresInDays`."));
    let new_key = object("The key to create.").required(["name"], name());
    let change = object("The fields to change. Omitted fields stay as they are.");
    let seconds = integer().minimum(Some(0)).maximum(Some(u32::MAX)).default(Some(0.into()));
    let seconds = seconds.description(Some("How long the previous secret stays valid."));
    let event = object("An event of the audit log.")
        .required(["id"], uuid())
        .required(["time"], instant())
        .required(["event"], event_kind())
        .required(["result"], string().enum_values(Some(["success", "failure"])))
        .required(["keyId"], or_null(uuid()))
        .required(["actor"], string())
        .required(["account", "ip", "userAgent", "reason"], or_null(string()))
        .required(["count"], integer().minimum(Some(1)));
    let introspection = "The state of a secret. If the secret is not valid, or belongs to another \
                         owner, the only field is `active`.";
    let introspection = object(introspection)
        .required(["active"], ObjectBuilder::new().schema_type(Type::Boolean))
        .optional(["scope", "sub", "token_type"], string())
        .optional(["client_id"], uuid())
        .optional(["iat", "exp"], integer());
    // Allows other fields, as RFC 7662 requires.
    let token = ObjectBuilder::new().property("token", string()).required("token");
    let mut schemas = common();
    schemas.extend([
        ("ApiKeyChange", changeable(change.optional(["name"], name())).into()),
        ("ApiKeyPage", page("keys", "ApiKey").into()),
        ("AuditEvent", event.into()),
        ("AuditPage", page("events", "AuditEvent").into()),
        ("Introspection", introspection.into()),
        (
            "NewApiKey",
            changeable(new_key)
                .optional(["expiresAt"], at)
                .optional(["expiresInDays"], days)
                .into(),
        ),
        (
            "Rotation",
            object("The options of a rotation.").optional(["overlapSeconds"], seconds).into(),
        ),
        ("Token", token.into()),
    ]);
    schemas
}

/// Returns the schemas of the sign-in routes.
pub(super) fn sign_in() -> NamedSchemas {
    // ASCII only, without quoted local parts and comments.
    let email = || {
        string().format(Some(SchemaFormat::KnownFormat(KnownFormat::Email))).max_length(Some(254))
    };
    let code = string().description(Some("The six digits from the e-mail."));
    let code_request = object("The address to send a code to.").required(["email"], email());
    let presented_code = object("A code, and the address it was sent to.")
        .required(["email"], email())
        .required(["code"], code);
    let mut schemas = common();
    schemas
        .extend([("CodeRequest", code_request.into()), ("PresentedCode", presented_code.into())]);
    schemas
}

/// Returns the schemas that both documents contain.
fn common() -> NamedSchemas {
    let last_used = or_null(instant()).description(Some("`null` until the first use."));
    let secret = string().description(Some("The secret. No other response contains it."));
    let retiring =
        object("The previous secret, which is valid until the overlap of the rotation ends.")
            .required(["prefix"], string())
            .required(["endsAt"], instant());
    vec![
        ("ApiKey", key("A key, without its secret.").required(["lastUsedAt"], last_used).into()),
        ("IssuedApiKey", key("A key with its new secret.").required(["key"], secret).into()),
        ("Message", object("A message for people.").required(["message"], string()).into()),
        (PROBLEM, problem()),
        ("RetiringSecret", retiring.into()),
    ]
}

/// Problem details (RFC 9457), with a stable code.
pub(super) fn problem() -> RefOr<Schema> {
    let status = integer().minimum(Some(400)).maximum(Some(599));
    let limit = "The limit of the plan that was reached: active keys, or days of lifetime.";
    let max_age = "The maximum age of the second factor, in seconds.";
    object("An error (RFC 9457). Programs use `code`.")
        .required(["type", "title"], string())
        .required(["status"], status)
        .required(["code"], string().description(Some("Stable.")))
        .required(["detail"], string().description(Some("For people; may change.")))
        .optional(["limit"], integer().description(Some(limit)))
        .optional(["maxAge"], integer().description(Some(max_age)))
        .into()
}

/// Builds an object with the fields that `ApiKey` and `IssuedApiKey` share.
fn key(text: &str) -> ClosedObject {
    let prefix = "The beginning of the secret, which may be displayed.";
    let account = "The account that owns the key; only for administrators.";
    object(text)
        .required(["id"], uuid())
        .required(["name"], string())
        .required(["prefix"], string().description(Some(prefix)))
        .required(["createdAt"], instant())
        .optional(["account"], string().description(Some(account)))
        .optional(["scopes", "allowedNetworks"], ArrayBuilder::new().items(string()))
        .optional(["metadata"], ObjectBuilder::new().additional_properties(Some(string())))
        .optional(["expiresAt", "disabledAt", "revokedAt", "rotatedAt"], instant())
        .optional(["retiring"], Ref::from_schema_name("RetiringSecret"))
        .optional(["lastUsedIp"], string())
}

/// Adds the optional fields that `NewApiKey` and `ApiKeyChange` share.
fn changeable(object: ClosedObject) -> ClosedObject {
    let scope = string().pattern(Some(r"^[!#-\[\]-~]{1,100}$"));
    let text = "What the key may do. An empty list means nothing. If omitted, the key may do \
                everything that its owner may do.";
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

pub(super) fn uuid() -> ObjectBuilder {
    string().format(Some(SchemaFormat::Custom("uuid".into())))
}

pub(super) fn instant() -> ObjectBuilder {
    string().format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
}

pub(super) fn status() -> ObjectBuilder {
    let all = [Status::Active, Status::Disabled, Status::Revoked, Status::Expired];
    string().enum_values(Some(all.map(|status| status.as_str())))
}

pub(super) fn event_kind() -> ObjectBuilder {
    string().enum_values(Some(EventKind::ALL.map(EventKind::as_str)))
}

pub(super) fn string() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

pub(super) fn integer() -> ObjectBuilder {
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

impl From<ClosedObject> for RefOr<Schema> {
    fn from(object: ClosedObject) -> Self {
        object.0.into()
    }
}

pub(super) const PROBLEM: &str = "Problem";
