//! What each route takes and answers.

use utoipa::openapi::{
    ContentBuilder, Ref, Required, ResponseBuilder,
    link::LinkBuilder,
    path::{Operation, OperationBuilder, ParameterBuilder, ParameterIn},
    request_body::RequestBodyBuilder,
    schema::{ObjectBuilder, Type},
};

use super::{
    CallerAuth,
    answers::{ErrorResponses, header, no_store, string},
    schemas::{events, identifier, instant, statuses},
};
use crate::{audit::ExportFormat, http::manage::route::Route};

pub(super) fn describe(route: Route, callers: &CallerAuth) -> Operation {
    let described = match route {
        Route::List => Described::new("listKeys", "Lists keys, newest first.")
            .query("status", "Only keys that have this status now.", statuses())
            .paged()
            .answers(200, "A page of keys.", "ApiKeyPage"),
        Route::Create => Described::new("createKey", "Makes a key. Its secret is shown this once.")
            .takes("NewApiKey", Required::True)
            .repeatable()
            .limited()
            .refuses(409, &["limit_reached"])
            .refuses(422, &["lifetime_limit"])
            .changes()
            .answers(201, "The key, with its secret.", "IssuedApiKey")
            .leads_to(&["getKey", "changeKey", "revokeKey", "rotateKey", "deleteKey"]),
        Route::Get => {
            Described::new("getKey", "One key.").names_a_key().answers(200, "The key.", "ApiKey")
        }
        Route::Change => Described::new("changeKey", "Changes what is named, and nothing else.")
            .names_a_key()
            .takes("ApiKeyChange", Required::True)
            .limited()
            .refuses(409, &["not_live", "conflict"])
            .changes()
            .answers(200, "The key as it is now.", "ApiKey"),
        Route::Revoke => Described::new("revokeKey", "Revokes a key for ever. Its record stays.")
            .names_a_key()
            .changes()
            .answers(200, "It is revoked, now or before.", "Message"),
        Route::Delete => {
            Described::new("deleteKey", "Removes a key's record, and with it the key.")
                .names_a_key()
                .changes()
                .answers(200, "It is gone.", "Message")
        }
        Route::Rotate => {
            Described::new("rotateKey", "Gives a key a new secret, which is shown this once.")
                .names_a_key()
                .takes("Rotation", Required::False)
                .repeatable()
                .limited()
                .refuses(409, &["not_live"])
                .changes()
                .answers(200, "The key, with its new secret.", "IssuedApiKey")
        }
        Route::Disable => Described::new("disableKey", "Switches a key off until it is enabled.")
            .names_a_key()
            .refuses(409, &["not_live", "conflict"])
            .changes()
            .answers(200, "The key as it is now.", "ApiKey"),
        Route::Enable => Described::new("enableKey", "Switches a key on again.")
            .names_a_key()
            .limited()
            .refuses(409, &["not_live", "conflict"])
            .changes()
            .answers(200, "The key as it is now.", "ApiKey"),
        Route::Events => Described::new("listEventsOfKey", "What happened to a key, newest first.")
            .names_a_key()
            .paged()
            .answers(200, "A page of events.", "AuditPage"),
        Route::Audit => Described::new("listEvents", "What happened to all keys, newest first.")
            .filtered()
            .paged()
            .answers(200, "A page of events.", "AuditPage"),
        Route::AuditLines => Described::new("exportEvents", "All of that, as lines of JSON.")
            .filtered()
            .exports(ExportFormat::JsonLines, "An `AuditEvent` on each line, newest first."),
        Route::AuditTable => Described::new("exportEventsAsCsv", "All of that, for a spreadsheet.")
            .filtered()
            .exports(ExportFormat::Csv, "The fields of an `AuditEvent` under their names."),
        Route::Introspect => Described::new("introspect", "Whether a secret is live (RFC 7662).")
            .takes_form("Token")
            .refuses(429, &["rate_limited", "quota_exhausted"])
            .answers(200, "What may be told of it.", "Introspection"),
    };
    let nobody = "Nobody is known to be calling. The host answers as it does elsewhere.";
    let nobody = ResponseBuilder::new().description(nobody).build();
    let mut operation = described.build("api-keys");
    operation.responses.responses.insert("401".into(), nobody.into());
    callers.describe(&mut operation);
    operation
}

pub(super) struct Described {
    operation: OperationBuilder,
    problems: ErrorResponses,
    response: ResponseBuilder,
    status: u16,
}

impl Described {
    /// What can happen to any call: the store is down or damaged, the body is too large.
    pub(super) fn new(id: &str, summary: &str) -> Self {
        let problems = ErrorResponses::default()
            .with(413, &["too_large"])
            .with(500, &["internal"])
            .with(503, &["unavailable"]);
        Self {
            operation: OperationBuilder::new().operation_id(Some(id)).summary(Some(summary)),
            problems,
            response: ResponseBuilder::new(),
            status: 200,
        }
    }

    pub(super) fn refuses(self, status: u16, codes: &[&'static str]) -> Self {
        Self { problems: self.problems.with(status, codes), ..self }
    }

    /// It changes something, of which the store may be unable to say whether it did.
    pub(super) fn changes(self) -> Self {
        self.refuses(503, &["outcome_unknown", "unconfirmed"])
    }

    /// It hands out what its caller and the owner must be able to have, and may have to be confirmed.
    pub(super) fn limited(self) -> Self {
        self.refuses(403, &["beyond_reach", "second_factor_required", "suspended"])
    }

    fn names_a_key(self) -> Self {
        let id = ParameterBuilder::new()
            .name("id")
            .parameter_in(ParameterIn::Path)
            .required(Required::True)
            .schema(Some(identifier()));
        self.with_parameter(id).refuses(404, &["not_found"])
    }

    fn query(self, name: &str, text: &str, schema: ObjectBuilder) -> Self {
        let parameter = ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Query)
            .required(Required::False)
            .description(Some(text))
            .schema(Some(schema));
        self.with_parameter(parameter).refuses(422, &["invalid"])
    }

    fn filtered(self) -> Self {
        self.query("event", "Only events of this kind.", events())
            .query("from", "Only events since this instant.", instant())
            .query("until", "Only events before this instant.", instant())
    }

    fn paged(self) -> Self {
        let limit = ObjectBuilder::new()
            .schema_type(Type::Integer)
            .minimum(Some(1))
            .maximum(Some(200))
            .default(Some(50.into()));
        self.query("limit", "How many to list.", limit).query(
            "cursor",
            "What `next` of the page before says.",
            identifier(),
        )
    }

    /// It can be tried again when its answer was lost.
    fn repeatable(self) -> Self {
        let token = ParameterBuilder::new()
            .name("Idempotency-Key")
            .parameter_in(ParameterIn::Header)
            .required(Required::False)
            .description(Some("The same again makes trying again safe, for a day."))
            .schema(Some(string().pattern(Some("^[!-~]{1,200}$"))));
        self.with_parameter(token)
            .refuses(409, &["conflict"])
            .refuses(422, &["invalid", "idempotency_key_reused"])
    }

    pub(super) fn takes(self, schema: &str, required: Required) -> Self {
        self.takes_as("application/json", schema, required)
            .refuses(400, &["malformed_body"])
            .refuses(422, &["invalid"])
    }

    fn takes_form(self, schema: &str) -> Self {
        self.takes_as("application/x-www-form-urlencoded", schema, Required::True)
            .refuses(422, &["invalid"])
    }

    fn takes_as(self, kind: &str, schema: &str, required: Required) -> Self {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(schema))).build();
        let body = RequestBodyBuilder::new().content(kind, content).required(Some(required));
        let operation = self.operation.request_body(Some(body.build()));
        Self { operation, ..self }.refuses(415, &["media_type"])
    }

    fn with_parameter(self, parameter: ParameterBuilder) -> Self {
        Self { operation: self.operation.parameter(parameter), ..self }
    }

    pub(super) fn answers(self, status: u16, text: &str, schema: &str) -> Self {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(schema))).build();
        let response = ResponseBuilder::new()
            .description(text)
            .content("application/json", content)
            .header("Cache-Control", no_store());
        Self { response, status, ..self }
    }

    /// A file, in pieces.
    fn exports(self, format: ExportFormat, text: &str) -> Self {
        let bare = format.media_type().split(';').next().unwrap_or_default();
        let content = ContentBuilder::new().schema(Some(string())).build();
        let attachment = string().enum_values(Some(["attachment"]));
        let response = ResponseBuilder::new()
            .description(text)
            .content(bare, content)
            .header("Cache-Control", no_store())
            .header("Content-Disposition", header("It is for a file.", attachment.build()));
        Self { response, status: 200, ..self }
    }

    /// The id of the key that was made is that of these operations.
    fn leads_to(self, operations: &[&str]) -> Self {
        let link = |id: &str| {
            LinkBuilder::new().operation_id(id).parameter("id", "$response.body#/id").build()
        };
        let response = operations.iter().fold(self.response, |all, id| all.link(*id, link(id)));
        Self { response, ..self }
    }

    pub(super) fn build(self, tag: &str) -> Operation {
        let answer = self.response.build();
        let mut operation =
            self.operation.tag(tag).response(self.status.to_string(), answer).build();
        self.problems.describe(&mut operation, &[]);
        operation
    }
}
