//! Schemas of bodies, and the error responses built from them.

use std::collections::{BTreeMap, BTreeSet};

use http::StatusCode;
use utoipa::openapi::{
    ContentBuilder, Header, HeaderBuilder, Ref, RefOr, Response, ResponseBuilder,
    path::Operation,
    schema::{
        AdditionalProperties, AllOfBuilder, AnyOfBuilder, ArrayBuilder, KnownFormat, Object,
        ObjectBuilder, Schema, SchemaFormat, SchemaType, Type,
    },
};

use crate::{audit::EventKind, http::responses::PROBLEM_JSON, model::Status};

/// The error codes that an operation can return, by status.
#[derive(Default)]
pub(super) struct ErrorResponses(BTreeMap<u16, BTreeSet<&'static str>>);

impl ErrorResponses {
    pub(super) fn with(mut self, status: u16, codes: &[&'static str]) -> Self {
        codes.iter().for_each(|code| self.add(status, code));
        self
    }

    pub(super) fn add(&mut self, status: u16, code: &'static str) {
        self.0.entry(status).or_default().insert(code);
    }

    /// Adds the responses to an operation. If the operation already describes a response with the
    /// same status, both are described as alternatives.
    pub(super) fn add_to(self, operation: &mut Operation, headers: &[(&str, &str)]) {
        for (status, codes) in self.0 {
            let response = error_response(status, codes, headers);
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
    let content = ContentBuilder::new().schema(Some(schema)).build();
    let mut response = ResponseBuilder::new()
        .description(reason.unwrap_or_default())
        .content(PROBLEM_JSON, content)
        .header("Cache-Control", no_store_header());
    if [409, 429, 503].contains(&status) {
        let seconds = integer().minimum(Some(1)).build();
        response =
            response.header("Retry-After", header("Try again after this many seconds.", seconds));
    }
    for (name, text) in headers {
        response = response.header(*name, header(text, string().build()));
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
    header("Caches do not store the response.", string().enum_values(Some(["no-store"])).build())
}

pub(super) fn header(text: &str, schema: Object) -> Header {
    HeaderBuilder::new().schema(Some(schema)).description(Some(text)).build()
}

/// The schemas of the management API.
pub(super) fn management() -> Vec<(&'static str, RefOr<Schema>)> {
    vec![
        ("ApiKey", key().build().into()),
        ("ApiKeyChange", change().into()),
        ("ApiKeyPage", page("keys", "ApiKey").into()),
        ("AuditEvent", event().into()),
        ("AuditPage", page("events", "AuditEvent").into()),
        ("Introspection", introspection().into()),
        ("IssuedApiKey", issued().into()),
        ("Message", message().into()),
        ("NewApiKey", new_key().into()),
        (PROBLEM, problem().into()),
        ("RetiringSecret", retiring().into()),
        ("Rotation", rotation().into()),
        ("Token", token().into()),
    ]
}

/// The schemas of the sign-in routes.
pub(super) fn sign_in() -> Vec<(&'static str, RefOr<Schema>)> {
    vec![
        ("ApiKey", key().build().into()),
        ("CodeRequest", code_request().into()),
        ("IssuedApiKey", issued().into()),
        ("Message", message().into()),
        ("PresentedCode", presented_code().into()),
        (PROBLEM, problem().into()),
        ("RetiringSecret", retiring().into()),
    ]
}

/// Problem details (RFC 9457), with a stable code.
pub(super) fn problem() -> ObjectBuilder {
    let status = integer().minimum(Some(400)).maximum(Some(599));
    let limit = "The limit of the plan that was reached: active keys, or days of lifetime.";
    let max_age = "The maximum age of the second factor, in seconds.";
    object("An error (RFC 9457). Programs use `code`.")
        .required("type", string())
        .required("title", string())
        .required("status", status)
        .required("code", string().description(Some("Stable.")))
        .required("detail", string().description(Some("For people; may change.")))
        .optional("limit", integer().description(Some(limit)))
        .optional("maxAge", integer().description(Some(max_age)))
        .build()
}

fn key() -> ClosedObject {
    let used = string().schema_type(SchemaType::from_iter([Type::String, Type::Null]));
    let used = used.format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)));
    with_key_fields(object("A key, without its secret."))
        .required("lastUsedAt", used.description(Some("`null` until the first use.")))
}

fn issued() -> ObjectBuilder {
    let secret = string().description(Some("The secret. No other response contains it."));
    with_key_fields(object("A key with its new secret.")).required("key", secret).build()
}

/// Adds the fields that `ApiKey` and `IssuedApiKey` share.
fn with_key_fields(object: ClosedObject) -> ClosedObject {
    object
        .required("id", uuid())
        .required("name", string())
        .required(
            "prefix",
            string().description(Some("The beginning of the secret, which may be displayed.")),
        )
        .required("createdAt", instant())
        .optional(
            "account",
            string().description(Some("The account that owns the key; only for administrators.")),
        )
        .optional("scopes", strings())
        .optional("allowedNetworks", strings())
        .optional("metadata", ObjectBuilder::new().additional_properties(Some(string())))
        .optional("expiresAt", instant())
        .optional("disabledAt", instant())
        .optional("revokedAt", instant())
        .optional("rotatedAt", instant())
        .optional("retiring", Ref::from_schema_name("RetiringSecret"))
        .optional("lastUsedIp", string())
}

fn retiring() -> ObjectBuilder {
    object("The previous secret, which is valid until the overlap of the rotation ends.")
        .required("prefix", string())
        .required("endsAt", instant())
        .build()
}

fn new_key() -> ObjectBuilder {
    let days = integer().minimum(Some(1)).maximum(Some(u32::MAX));
    let at = instant().description(Some("An instant in the future. Excludes `expiresInDays`."));
    object("The key to create.")
        .required("name", name())
        .optional("scopes", scopes())
        .optional("expiresAt", at)
        .optional("expiresInDays", days)
        .optional("allowedNetworks", networks())
        .optional("metadata", metadata())
        .build()
}

fn change() -> ObjectBuilder {
    object("The fields to change. Omitted fields stay as they are.")
        .optional("name", name())
        .optional("scopes", scopes())
        .optional("allowedNetworks", networks())
        .optional("metadata", metadata())
        .build()
}

fn rotation() -> ObjectBuilder {
    let overlap = integer().minimum(Some(0)).maximum(Some(u32::MAX)).default(Some(0.into()));
    let text = "How long the previous secret stays valid.";
    object("The options of a rotation.")
        .optional("overlapSeconds", overlap.description(Some(text)))
        .build()
}

fn event() -> ObjectBuilder {
    let or_null = || string().schema_type(SchemaType::from_iter([Type::String, Type::Null]));
    object("An event of the audit log.")
        .required("id", uuid())
        .required("time", instant())
        .required("event", event_kind())
        .required("result", string().enum_values(Some(["success", "failure"])))
        .required("account", or_null())
        .required("keyId", or_null().format(Some(SchemaFormat::Custom("uuid".into()))))
        .required("actor", string())
        .required("ip", or_null())
        .required("userAgent", or_null())
        .required("reason", or_null())
        .required("count", integer().minimum(Some(1)))
        .build()
}

fn page(items: &str, of: &str) -> ObjectBuilder {
    let next = uuid().description(Some("The `cursor` of the next page. Omitted on the last page."));
    object("A page of items, newest first.")
        .required(items, ArrayBuilder::new().items(Ref::from_schema_name(of)))
        .optional("next", next)
        .build()
}

fn introspection() -> ObjectBuilder {
    object("The state of a secret. If the secret is not valid, or belongs to another owner, the only field is `active`.")
        .required("active", ObjectBuilder::new().schema_type(Type::Boolean))
        .optional("scope", string())
        .optional("sub", string())
        .optional("client_id", uuid())
        .optional("token_type", string())
        .optional("iat", integer())
        .optional("exp", integer())
        .build()
}

/// Allows other fields, as RFC 7662 requires.
fn token() -> ObjectBuilder {
    ObjectBuilder::new().property("token", string()).required("token")
}

fn code_request() -> ObjectBuilder {
    object("The address to send a code to.").required("email", email()).build()
}

fn presented_code() -> ObjectBuilder {
    let code = string().description(Some("The six digits from the e-mail."));
    object("A code, and the address it was sent to.")
        .required("email", email())
        .required("code", code)
        .build()
}

fn message() -> ObjectBuilder {
    object("A message for people.").required("message", string()).build()
}

fn name() -> ObjectBuilder {
    // At least one character that is not a space, and no NUL.
    let pattern = r"^[^\x00]*[^\s\x00][^\x00]*$";
    string().min_length(Some(1)).max_length(Some(100)).pattern(Some(pattern))
}

/// ASCII only, without quoted local parts and comments.
fn email() -> ObjectBuilder {
    string().format(Some(SchemaFormat::KnownFormat(KnownFormat::Email))).max_length(Some(254))
}

fn scopes() -> ArrayBuilder {
    let scope = string().pattern(Some(r"^[!#-\[\]-~]{1,100}$"));
    let text = "What the key may do. An empty list means nothing. If omitted, the key may do everything that its owner may do.";
    ArrayBuilder::new().items(scope).max_items(Some(200)).description(Some(text))
}

fn networks() -> ArrayBuilder {
    let text =
        "The networks from which the key may be used, for example `192.0.2.0/24` or `2001:db8::1`.";
    ArrayBuilder::new().items(string()).max_items(Some(100)).description(Some(text))
}

fn metadata() -> ObjectBuilder {
    let value = string().max_length(Some(1_000)).pattern(Some(r"^[^\x00]*$"));
    let key = string().pattern(Some(r"^[^\x00]{1,64}$"));
    ObjectBuilder::new()
        .property_names(Some(Schema::Object(key.build())))
        .additional_properties(Some(value))
        .max_properties(Some(50))
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

fn strings() -> ArrayBuilder {
    ArrayBuilder::new().items(string())
}

fn integer() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Integer)
}

/// Builds an object schema without additional properties.
struct ClosedObject(ObjectBuilder);

fn object(text: &str) -> ClosedObject {
    let closed = AdditionalProperties::FreeForm(false);
    ClosedObject(ObjectBuilder::new().description(Some(text)).additional_properties(Some(closed)))
}

impl ClosedObject {
    fn required(self, name: &str, schema: impl Into<RefOr<Schema>>) -> Self {
        Self(self.optional(name, schema).0.required(name))
    }

    fn optional(self, name: &str, schema: impl Into<RefOr<Schema>>) -> Self {
        Self(self.0.property(name, schema))
    }

    fn build(self) -> ObjectBuilder {
        self.0
    }
}

pub(super) const PROBLEM: &str = "Problem";
