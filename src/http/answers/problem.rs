use std::fmt::Write as _;

use http::StatusCode;

/// The body of a problem (RFC 9457). The extension `code` is what programs go by; `more` are
/// further ones, with numbers.
pub(crate) fn problem(
    status: StatusCode,
    code: &str,
    detail: &str,
    more: &[(&str, u64)],
) -> String {
    let mut body = String::with_capacity(160);
    let title = status.canonical_reason().unwrap_or_default();
    // Writing to a String cannot fail.
    let _ =
        write!(body, r#"{{"type":"about:blank","title":"{title}","status":{}"#, status.as_u16());
    body.push_str(",\"code\":");
    quote(&mut body, code);
    body.push_str(",\"detail\":");
    quote(&mut body, detail);
    for (name, number) in more {
        let _ = write!(body, r#","{name}":{number}"#);
    }
    body.push('}');
    body
}

/// By hand, because without the management API nothing here would need `serde_json`.
fn quote(body: &mut String, text: &str) {
    body.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => body.extend(['\\', character]),
            control if control < ' ' => {
                let _ = write!(body, "\\u{:04x}", u32::from(control));
            }
            other => body.push(other),
        }
    }
    body.push('"');
}

pub(crate) const PROBLEM_JSON: &str = "application/problem+json";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_leaves_its_quotes() {
        let body = problem(StatusCode::CONFLICT, "x", "a \"b\" \\ c\n\u{e9}", &[("limit", 5)]);
        let expected = concat!(
            r#"{"type":"about:blank","title":"Conflict","status":409,"code":"x","#,
            r#""detail":"a \"b\" \\ c\u000aé","limit":5}"#
        );
        assert_eq!(body, expected);
    }
}
