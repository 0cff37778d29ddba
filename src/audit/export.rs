use std::{borrow::Cow, fmt::Write as _};

use super::AuditEvent;
use crate::model::needs_escape;

/// How an export of the audit log is written: the fields that the management API shows, under the
/// same names. The tenant is not among them: an export is of the one that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExportFormat {
    /// An object of JSON on each line. What a terminal would obey, or an eye misread, is escaped.
    JsonLines,
    /// Comma-separated values with a line of names (RFC 4180), in UTF-8.
    ///
    /// A spreadsheet would calculate what looks like a formula, so such text has a `'` in front, and
    /// so has text that begins with one: who wants what was stored takes one `'` away.
    Csv,
}

impl ExportFormat {
    /// Its media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::JsonLines => "application/jsonl",
            Self::Csv => "text/csv; charset=utf-8",
        }
    }

    /// What stands before all events.
    pub(crate) fn head(self) -> String {
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

/// In the order of the names.
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
    [
        id.to_string().into(),
        at.to_string().into(),
        kind.as_str().into(),
        outcome.as_str().into(),
        account.as_deref().into(),
        key_id.map(|id| id.to_string()).into(),
        actor.as_str().into(),
        ip.map(|ip| ip.to_string()).into(),
        user_agent.as_deref().into(),
        reason.as_deref().into(),
        Value::Number(*count),
    ]
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl<'a, T: Into<Value<'a>>> From<Option<T>> for Value<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Nothing, Into::into)
    }
}

/// By hand: `serde_json` is not among the crates of the default features.
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
            harmful if needs_escape(harmful) => {
                for unit in harmful.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            plain => out.push(plain),
        }
    }
    out.push('"');
}

/// Text is in quotes throughout, whatever a reader takes for the separator.
fn csv_line(out: &mut String, event: &AuditEvent) {
    for (n, value) in values(event).into_iter().enumerate() {
        if n > 0 {
            out.push(',');
        }
        match value {
            Value::Text(text) => {
                let mark = if is_formula(&text) || text.starts_with('\'') { "'" } else { "" };
                let _ = write!(out, "\"{mark}{}\"", text.replace('"', "\"\""));
            }
            Value::Number(number) => drop(write!(out, "{number}")),
            Value::Nothing => {}
        }
    }
    out.push_str("\r\n");
}

/// Whether some spreadsheet would calculate it: some look behind spaces and what cannot be seen,
/// some take the wide forms of East Asia for the sign itself.
fn is_formula(text: &str) -> bool {
    let seen = |c: &char| !c.is_whitespace() && !needs_escape(*c);
    let sign = text.chars().find(seen).is_some_and(|first| "=+-@＝＋－＠".contains(first));
    sign || text.starts_with(|first: char| first.is_control())
}
