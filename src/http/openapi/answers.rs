use std::collections::{BTreeMap, BTreeSet};

use http::StatusCode;
use utoipa::openapi::{
    ContentBuilder, Header, HeaderBuilder, Ref, RefOr, Response, ResponseBuilder,
    path::Operation,
    schema::{AllOfBuilder, AnyOfBuilder, Object, ObjectBuilder, Schema, Type},
};

use super::schemas::PROBLEM;
use crate::http::PROBLEM_JSON;

/// The problems that can be answered: their codes, by status.
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

    /// Says so of an operation. What it says already of a status stays: then it is either.
    pub(super) fn describe(self, operation: &mut Operation, fields: &[(&str, &str)]) {
        for (status, codes) in self.0 {
            let ours = response(status, codes, fields);
            let all = &mut operation.responses.responses;
            match all.get_mut(&status.to_string()) {
                Some(RefOr::T(theirs)) => join(theirs, ours),
                _ => {
                    all.insert(status.to_string(), RefOr::T(ours));
                }
            }
        }
    }
}

fn response(status: u16, codes: BTreeSet<&str>, fields: &[(&str, &str)]) -> Response {
    let reason = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    let code = string().enum_values(Some(codes));
    let schema = AllOfBuilder::new()
        .item(Ref::from_schema_name(PROBLEM))
        .item(ObjectBuilder::new().property("code", code));
    let content = ContentBuilder::new().schema(Some(schema)).build();
    let later = [409, 429, 503].contains(&status).then(|| {
        let seconds = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1));
        ("Retry-After", header("After how many seconds to try again.", seconds.build()))
    });
    let response = ResponseBuilder::new()
        .description(reason.unwrap_or_default())
        .content(PROBLEM_JSON, content)
        .header("Cache-Control", no_store());
    let response = later.into_iter().fold(response, |all, (name, field)| all.header(name, field));
    let described = fields.iter().map(|(name, text)| (*name, header(text, string().build())));
    described.fold(response, |all, (name, field)| all.header(name, field)).build()
}

fn join(theirs: &mut Response, ours: Response) {
    for (name, field) in ours.headers {
        theirs.headers.entry(name).or_insert(field);
    }
    for (kind, content) in ours.content {
        let Some(RefOr::T(known)) = theirs.content.get_mut(&kind) else {
            theirs.content.insert(kind, content);
            continue;
        };
        if let RefOr::T(content) = content {
            let both = known.schema.take().into_iter().chain(content.schema);
            let either = both.fold(AnyOfBuilder::new(), AnyOfBuilder::item);
            known.schema = Some(RefOr::T(Schema::AnyOf(either.build())));
        }
    }
}

/// No cache keeps what a key was needed for.
pub(super) fn no_store() -> Header {
    let schema = string().enum_values(Some(["no-store"]));
    header("No cache keeps it.", schema.build())
}

pub(super) fn header(text: &str, schema: Object) -> Header {
    HeaderBuilder::new().schema(Some(schema)).description(Some(text)).build()
}

pub(super) fn string() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}
