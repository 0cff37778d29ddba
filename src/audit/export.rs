use std::{borrow::Cow, fmt::Write as _};

use super::event::AuditEvent;
use crate::model::needs_escape;

/// The file format of an audit log export.
///
/// An export contains the fields of the management API under the same names. The tenant is omitted,
/// because an export covers a single tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExportFormat {
    /// One JSON object per line. Control characters and characters that reorder text are escaped.
    JsonLines,
    /// Comma-separated values (RFC 4180) with a header line, in UTF-8.
    ///
    /// Escaped against formula injection: text that a spreadsheet would evaluate as a formula is prefixed
    /// with `'`. Text that begins with `'` is prefixed too, so removing one `'` restores the original.
    Csv,
}

impl ExportFormat {
    /// Returns the media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::JsonLines => "application/jsonl",
            Self::Csv => "text/csv; charset=utf-8",
        }
    }

    /// The text before the first event.
    pub(crate) fn header(self) -> String {
        match self {
            Self::JsonLines => String::new(),
            Self::Csv => NAMES.join(",") + "\r\n",
        }
    }

    pub(crate) fn write(self, out: &mut String, event: &AuditEvent) {
        match self {
            Self::JsonLines => json_line(out, event),
            Self::Csv => csv_line(out, event),
        }
    }
}

const NAMES: [&str; 11] = [
    "id",
    "time",
    "event",
    "result",
    "account",
    "keyId",
    "actor",
    "ip",
    "userAgent",
    "reason",
    "count",
];

enum Value<'a> {
    Text(Cow<'a, str>),
    Number(u32),
    Nothing,
}

/// The values in the order of `NAMES`.
fn values(event: &AuditEvent) -> [Value<'_>; 11] {
    // Without `..`, so that a new field does not compile until it is considered.
    let AuditEvent {
        id,
        at,
        kind,
        outcome,
        tenant: _,
        account,
        key_id,
        actor,
        ip,
        user_agent,
        reason,
        count,
    } = event;
    let owned = |text: Option<String>| text.map_or(Value::Nothing, |text| Value::Text(text.into()));
    [
        owned(Some(id.to_string())),
        owned(Some(at.to_string())),
        Value::Text(kind.as_str().into()),
        Value::Text(outcome.as_str().into()),
        optional(account),
        owned(key_id.map(|id| id.to_string())),
        Value::Text(actor.into()),
        owned(ip.map(|ip| ip.to_string())),
        optional(user_agent),
        optional(reason),
        Value::Number(*count),
    ]
}

fn optional(text: &Option<String>) -> Value<'_> {
    text.as_ref().map_or(Value::Nothing, |text| Value::Text(text.into()))
}

/// Without `serde_json`, which is not a dependency of the default features.
fn json_line(out: &mut String, event: &AuditEvent) {
    for (n, (name, value)) in NAMES.iter().zip(values(event)).enumerate() {
        out.push(if n == 0 { '{' } else { ',' });
        // Writing to a String cannot fail.
        let _ = write!(out, "\"{name}\":");
        match value {
            Value::Text(text) => json_text(out, &text),
            Value::Number(number) => drop(write!(out, "{number}")),
            Value::Nothing => out.push_str("null"),
        }
    }
    out.push_str("}\n");
}

fn json_text(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            character if needs_escape(character) => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            character => out.push(character),
        }
    }
    out.push('"');
}

/// All text is quoted, because some spreadsheets use another separator than a comma.
fn csv_line(out: &mut String, event: &AuditEvent) {
    for (n, value) in values(event).into_iter().enumerate() {
        if n > 0 {
            out.push(',');
        }
        match value {
            Value::Text(text) => {
                let escape = if is_formula(&text) || text.starts_with('\'') { "'" } else { "" };
                let _ = write!(out, "\"{escape}{}\"", text.replace('"', "\"\""));
            }
            Value::Number(number) => drop(write!(out, "{number}")),
            Value::Nothing => {}
        }
    }
    out.push_str("\r\n");
}

/// Whether a spreadsheet could evaluate the text as a formula. Some spreadsheets ignore leading spaces
/// and invisible characters, and some accept full-width signs.
fn is_formula(text: &str) -> bool {
    let is_visible = |c: &char| !c.is_whitespace() && !needs_escape(*c);
    let sign = text.chars().find(is_visible).is_some_and(|first| "=+-@＝＋－＠".contains(first));
    sign || text.starts_with(|first: char| first.is_control())
}
