use http::Method;
use utoipa::openapi::{
    ContentBuilder, Ref, Required, ResponseBuilder,
    link::LinkBuilder,
    path::{HttpMethod, Operation, OperationBuilder, ParameterBuilder, ParameterIn},
    request_body::RequestBodyBuilder,
    schema::ObjectBuilder,
};

use super::schemas::{
    ErrorResponses, event_kind, header, instant, integer, no_store_header, status, string, uuid,
};
use crate::{audit::ExportFormat, http::manage::Route};

/// Describes a route of the management API, without the security that its callers need.
pub(super) fn management(method: &Method, path: &str, route: Route) -> Operation {
    let describe = |id, summary| {
        let mut described = Described::new(id, summary);
        if path.contains("{id}") {
            let schema = uuid();
            described = described.parameter(ParameterIn::Path, "id", "The id of the key.", schema);
            described = described.fails(404, &["not_found"]);
        }
        if *method == Method::GET || route == Route::Introspect {
            return described;
        }
        described.writes()
    };
    let described = match route {
        Route::ListKeys => describe("listKeys", "Lists keys, newest first.")
            .query("status", "Only keys with this status.", status())
            .paged()
            .returns(200, "A page of keys.", "ApiKeyPage"),
        Route::CreateKey => {
            let mut response = json_response("The key, with its secret.", "IssuedApiKey");
            for id in ["getKey", "changeKey", "revokeKey", "rotateKey", "deleteKey"] {
                let link = LinkBuilder::new().operation_id(id);
                response = response.link(id, link.parameter("id", "$response.body#/id").build());
            }
            describe("createKey", "Creates a key. Only this response contains the secret.")
                .takes_json("NewApiKey", Required::True)
                .idempotent()
                .grants_access()
                .fails(409, &["limit_reached"])
                .fails(422, &["lifetime_limit"])
                .responds(201, response)
        }
        Route::GetKey => describe("getKey", "Returns a key.").returns(200, "The key.", "ApiKey"),
        Route::ChangeKey => {
            describe("changeKey", "Changes the given fields of a key, and no others.")
                .takes_json("ApiKeyChange", Required::True)
                .grants_access()
                .fails(409, &["not_live", "conflict"])
                .returns(200, "The changed key.", "ApiKey")
        }
        Route::RevokeKey => describe("revokeKey", "Revokes a key permanently. Its record stays.")
            .returns(200, "The key is revoked, by this request or earlier.", "Message"),
        Route::DeleteKey => describe("deleteKey", "Deletes a key and its record.").returns(
            200,
            "The key is deleted.",
            "Message",
        ),
        Route::RotateKey => {
            describe("rotateKey", "Issues a new secret for a key. Only this response contains it.")
                .takes_json("Rotation", Required::False)
                .idempotent()
                .grants_access()
                .fails(409, &["not_live"])
                .returns(200, "The key, with its new secret.", "IssuedApiKey")
        }
        Route::DisableKey => describe("disableKey", "Disables a key until it is enabled.")
            .fails(409, &["not_live", "conflict"])
            .returns(200, "The disabled key.", "ApiKey"),
        Route::EnableKey => describe("enableKey", "Enables a disabled key.")
            .grants_access()
            .fails(409, &["not_live", "conflict"])
            .returns(200, "The enabled key.", "ApiKey"),
        Route::KeyEvents => {
            describe("listEventsOfKey", "Lists the audit events of a key, newest first.")
                .paged()
                .returns(200, "A page of events.", "AuditPage")
        }
        Route::Audit => describe("listEvents", "Lists the audit events of all keys, newest first.")
            .event_filters()
            .paged()
            .returns(200, "A page of events.", "AuditPage"),
        Route::AuditJsonLines => {
            let text = "One `AuditEvent` per line, newest first.";
            describe("exportEvents", "Exports the audit events as JSON Lines.")
                .event_filters()
                .responds(200, file_response(ExportFormat::JsonLines, text))
        }
        Route::AuditCsv => {
            let text = "A header line, then one `AuditEvent` per line, newest first.";
            describe("exportEventsAsCsv", "Exports the audit events for a spreadsheet.")
                .event_filters()
                .responds(200, file_response(ExportFormat::Csv, text))
        }
        Route::Introspect => {
            describe("introspect", "Returns whether a secret is valid (RFC 7662).")
                .takes_body("application/x-www-form-urlencoded", "Token", Required::True)
                .fails(429, &["rate_limited", "quota_exhausted"])
                .returns(200, "The state of the secret.", "Introspection")
        }
    };
    let mut operation = described.build("api-keys");
    let text = "The caller is not authenticated. The host determines the body.";
    let unauthenticated = ResponseBuilder::new().description(text).build();
    operation.responses.responses.insert("401".into(), unauthenticated.into());
    operation
}

/// Describes the sign-in routes, without the security of those that take a key.
pub(super) fn sign_in() -> [(HttpMethod, &'static str, Operation); 4] {
    let request_code = Described::new("requestCode", "Sends a code if there is an account.")
        .takes_json("CodeRequest", Required::True)
        .fails(429, &["rate_limited"])
        .writes()
        .returns(202, "The same, whether there is an account or not.", "Message");
    let summary = "Exchanges a code for a key. Only this response contains the secret.";
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
    errors: ErrorResponses,
}

impl Described {
    /// Starts with the errors that every operation can return: the store is unavailable or corrupt,
    /// or the body is too large.
    fn new(id: &str, summary: &str) -> Self {
        let errors = ErrorResponses::default()
            .with(413, &["too_large"])
            .with(500, &["internal"])
            .with(503, &["unavailable"]);
        let operation = OperationBuilder::new().operation_id(Some(id)).summary(Some(summary));
        Self { operation, errors }
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

    fn parameter(self, place: ParameterIn, name: &str, text: &str, schema: ObjectBuilder) -> Self {
        let is_required = matches!(place, ParameterIn::Path);
        let parameter = ParameterBuilder::new()
            .name(name)
            .parameter_in(place)
            .required(if is_required { Required::True } else { Required::False })
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
        self.query("limit", "The maximum number of items on the page.", limit).query(
            "cursor",
            "The value of `next` from the previous page.",
            uuid(),
        )
    }

    fn idempotent(self) -> Self {
        let text = "Makes retries safe: send the same value again if the response was lost. Valid \
                    for one day.";
        let token = string().pattern(Some("^[!-~]{1,200}$"));
        self.parameter(ParameterIn::Header, "Idempotency-Key", text, token)
            .fails(409, &["conflict"])
            .fails(422, &["invalid", "idempotency_key_reused"])
    }

    fn takes_json(self, schema: &str, required: Required) -> Self {
        self.takes_body("application/json", schema, required).fails(400, &["malformed_body"])
    }

    fn takes_body(self, content_type: &str, schema: &str, required: Required) -> Self {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(schema))).build();
        let body = RequestBodyBuilder::new().content(content_type, content);
        let body = body.required(Some(required)).build();
        let described = Self { operation: self.operation.request_body(Some(body)), ..self };
        described.fails(415, &["media_type"]).fails(422, &["invalid"])
    }

    fn returns(self, status: u16, text: &str, schema: &str) -> Self {
        self.responds(status, json_response(text, schema))
    }

    fn responds(self, status: u16, response: ResponseBuilder) -> Self {
        let response = response.header("Cache-Control", no_store_header()).build();
        Self { operation: self.operation.response(status.to_string(), response), ..self }
    }

    fn build(self, tag: &str) -> Operation {
        let mut operation = self.operation.tag(tag).build();
        self.errors.add_to(&mut operation, |_| &[]);
        operation
    }
}

fn json_response(text: &str, schema: &str) -> ResponseBuilder {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(schema))).build();
    ResponseBuilder::new().description(text).content("application/json", content)
}

fn file_response(format: ExportFormat, text: &str) -> ResponseBuilder {
    let media_type = format.media_type().split(';').next().unwrap_or_default();
    let attachment = string().enum_values(Some(["attachment"]));
    let disposition = header("Browsers save the response as a file.", attachment);
    ResponseBuilder::new()
        .description(text)
        .content(media_type, ContentBuilder::new().schema(Some(string())).build())
        .header("Content-Disposition", disposition)
}
