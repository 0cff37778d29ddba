//! Checks responses against an OpenAPI document.

use http::HeaderMap;
use serde_json::{Value, json};
use utoipa::openapi::OpenApi;

pub struct Document(pub Value);

/// A response as the client receives it.
pub struct Seen<'a> {
    pub status: u16,
    pub fields: &'a HeaderMap,
    pub body: &'a str,
}

impl Document {
    pub fn new(document: &OpenApi) -> Self {
        Self(serde_json::to_value(document).unwrap())
    }

    /// Returns the operation that a request belongs to, if it is described.
    pub fn operation(&self, method: &str, path: &str) -> Option<&Value> {
        let paths = self.0["paths"].as_object().unwrap();
        let bare = path.split('?').next().unwrap();
        let (_, methods) = paths.iter().find(|(template, _)| is_of(bare, template))?;
        methods.get(method.to_lowercase())
    }

    /// Panics unless this response is declared: status, headers, media type and the whole body.
    pub fn expect(&self, method: &str, path: &str, seen: &Seen<'_>) {
        if method == "HEAD" && seen.status != 405 {
            // The response to `GET`, without its body.
            assert!(self.operation("GET", path).is_some(), "{method} {path} is not described");
            assert_eq!(seen.body, "", "{method} {path}");
            return;
        }
        let Some(operation) = self.operation(method, path) else {
            let no_operation = [401, 404, 405, 413];
            assert!(no_operation.contains(&seen.status), "{method} {path} is not described");
            return;
        };
        let shown = format!("{method} {path}: {} {}", seen.status, seen.body);
        let declared = &operation["responses"][seen.status.to_string()];
        assert!(declared.is_object(), "not declared: {shown}");
        for name in ["retry-after", "www-authenticate", "ratelimit", "ratelimit-policy"] {
            let mut names = declared["headers"].as_object().into_iter().flat_map(|all| all.keys());
            let known = names.any(|known| known.eq_ignore_ascii_case(name));
            assert!(known || !seen.fields.contains_key(name), "{name} of {shown}");
        }
        let Some(content) = declared["content"].as_object() else {
            assert_eq!(seen.body, "", "a body without a declared type: {shown}");
            return;
        };
        let kind = seen.fields["content-type"].to_str().unwrap();
        let kind = kind.split(';').next().unwrap();
        assert!(content.contains_key(kind), "{kind} of {shown}");
        if kind.ends_with("json") {
            self.expect_shape(&content[kind]["schema"], seen.body, &shown);
        }
    }

    fn expect_shape(&self, schema: &Value, body: &str, shown: &str) {
        let whole = json!({ "components": self.0["components"], "allOf": [schema] });
        let validator = jsonschema::draft202012::new(&whole).unwrap();
        let body = serde_json::from_str(body).unwrap();
        let errors: Vec<_> = validator.iter_errors(&body).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{errors:?} of {shown}");
    }
}

fn is_of(path: &str, template: &str) -> bool {
    let (path, template): (Vec<_>, Vec<_>) =
        (path.split('/').collect(), template.split('/').collect());
    let same = |(segment, word): (&&str, &&str)| match word.starts_with('{') {
        true => !segment.is_empty(),
        false => segment == word,
    };
    path.len() == template.len() && path.iter().zip(&template).all(same)
}
