//! The shapes of bodies.

use utoipa::openapi::{
    Ref, RefOr,
    schema::{
        AdditionalProperties, ArrayBuilder, KnownFormat, ObjectBuilder, Schema, SchemaFormat,
        SchemaType, Type,
    },
};

use super::answers::string;
use crate::{audit::EventKind, model::Status};

pub(super) const PROBLEM: &str = "Problem";

pub(super) fn all() -> Vec<(&'static str, RefOr<Schema>)> {
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

pub(super) fn of_signing_in() -> Vec<(&'static str, RefOr<Schema>)> {
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

/// Of RFC 9457, with a stable code.
pub(super) fn problem() -> ObjectBuilder {
    let status = integer().minimum(Some(400)).maximum(Some(599));
    object("What went wrong (RFC 9457). Programs go by `code`.")
        .required("type", string())
        .required("title", string())
        .required("status", status)
        .required("code", string().description(Some("Stable.")))
        .required("detail", string().description(Some("For people; may change.")))
        .optional("limit", integer().description(Some("The plan's number that was reached.")))
        .optional("maxAge", integer().description(Some(MAX_AGE)))
        .build()
}

fn key() -> Shape {
    let used = string().schema_type(SchemaType::from_iter([Type::String, Type::Null]));
    let used = used.format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)));
    described(object("A key, without its secret."))
        .required("lastUsedAt", used.description(Some("`null` until it is used.")))
}

fn issued() -> ObjectBuilder {
    let secret = string().description(Some("The secret. It is shown this once."));
    described(object("A key with the secret that was made for it.")).required("key", secret).build()
}

/// What is shown of every key.
fn described(shape: Shape) -> Shape {
    shape
        .required("id", identifier())
        .required("name", string())
        .required("prefix", string().description(Some("What may be shown of the secret.")))
        .required("createdAt", instant())
        .optional("account", string().description(Some("Whose it is, for administrators.")))
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
    object("The secret before the last rotation, while both work.")
        .required("prefix", string())
        .required("endsAt", instant())
        .build()
}

fn new_key() -> ObjectBuilder {
    let days = integer().minimum(Some(1)).maximum(Some(u32::MAX));
    let at = instant().description(Some("In the future. Not together with `expiresInDays`."));
    object("The key to make.")
        .required("name", name())
        .optional("scopes", scopes())
        .optional("expiresAt", at)
        .optional("expiresInDays", days)
        .optional("allowedNetworks", networks())
        .optional("metadata", metadata())
        .build()
}

fn change() -> ObjectBuilder {
    object("What shall become of a key. Whatever is not named stays.")
        .optional("name", name())
        .optional("scopes", scopes())
        .optional("allowedNetworks", networks())
        .optional("metadata", metadata())
        .build()
}

fn rotation() -> ObjectBuilder {
    let overlap = integer().minimum(Some(0)).maximum(Some(u32::MAX)).default(Some(0.into()));
    let text = "How long the secret there is keeps working; not at all, unless told.";
    object("How to rotate.").optional("overlapSeconds", overlap.description(Some(text))).build()
}

fn event() -> ObjectBuilder {
    let or_null = || string().schema_type(SchemaType::from_iter([Type::String, Type::Null]));
    object("A line of the audit log.")
        .required("id", identifier())
        .required("time", instant())
        .required("event", events())
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
    let next = identifier().description(Some("The `cursor` of the next page, if there is one."));
    object("Newest first.")
        .required(items, ArrayBuilder::new().items(Ref::from_schema_name(of)))
        .optional("next", next)
        .build()
}

fn introspection() -> ObjectBuilder {
    object("Of a secret that is not live, or of no concern to the caller, only that.")
        .required("active", ObjectBuilder::new().schema_type(Type::Boolean))
        .optional("scope", string())
        .optional("sub", string())
        .optional("client_id", identifier())
        .optional("token_type", string())
        .optional("iat", integer())
        .optional("exp", integer())
        .build()
}

/// Other fields are let pass, as RFC 7662 wants it.
fn token() -> ObjectBuilder {
    ObjectBuilder::new().property("token", string()).required("token")
}

fn code_request() -> ObjectBuilder {
    object("Where to send a code.").required("email", email()).build()
}

fn presented_code() -> ObjectBuilder {
    let code = string().description(Some("The six digits of the letter."));
    object("A code, and where it was sent.")
        .required("email", email())
        .required("code", code)
        .build()
}

fn message() -> ObjectBuilder {
    object("One sentence.").required("message", string()).build()
}

fn name() -> ObjectBuilder {
    // At least one character that is no space, and no NUL.
    let pattern = r"^[^\x00]*[^\s\x00][^\x00]*$";
    string().min_length(Some(1)).max_length(Some(100)).pattern(Some(pattern))
}

/// ASCII only, without quotes and comments.
fn email() -> ObjectBuilder {
    string().format(Some(SchemaFormat::KnownFormat(KnownFormat::Email))).max_length(Some(254))
}

fn scopes() -> ArrayBuilder {
    let scope = string().pattern(Some(r"^[!#-\[\]-~]{1,100}$"));
    let text = "What it may do; nothing, if empty. Without this field: all that its owner may do.";
    ArrayBuilder::new().items(scope).max_items(Some(200)).description(Some(text))
}

fn networks() -> ArrayBuilder {
    let text = "From where it may be used: `192.0.2.0/24`, `2001:db8::1`.";
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

pub(super) fn identifier() -> ObjectBuilder {
    string().format(Some(SchemaFormat::Custom("uuid".into())))
}

pub(super) fn instant() -> ObjectBuilder {
    string().format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
}

pub(super) fn statuses() -> ObjectBuilder {
    let all = [Status::Active, Status::Disabled, Status::Revoked, Status::Expired];
    string().enum_values(Some(all.map(|status| status.as_str())))
}

pub(super) fn events() -> ObjectBuilder {
    string().enum_values(Some(EventKind::ALL.map(EventKind::as_str)))
}

fn strings() -> ArrayBuilder {
    ArrayBuilder::new().items(string())
}

fn integer() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Integer)
}

const MAX_AGE: &str = "How many seconds ago the second factor may have been checked at most.";

/// An object that has these fields and no others.
struct Shape(ObjectBuilder);

fn object(text: &str) -> Shape {
    let closed = AdditionalProperties::FreeForm(false);
    Shape(ObjectBuilder::new().description(Some(text)).additional_properties(Some(closed)))
}

impl Shape {
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
