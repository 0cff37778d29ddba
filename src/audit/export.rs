use std::fmt::{self, Write as _};

use super::event::AuditEvent;
use crate::model::{one_line, push_json_string};

/// The file format of an audit log export.
///
/// An export contains the fields of the management API under the same names, except for the tenant: it covers one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExportFormat {
    /// One JSON object per line. Control characters and characters that reorder text are escaped.
    JsonLines,
    /// Comma-separated values (RFC 4180) with a header line, in UTF-8. Each event is one line.
    ///
    /// Control characters, line breaks, invisible characters and those that reorder text are written as
    /// [`one_line`] writes them: `\u{202e}`. A `\` before `u{` is written as `\u{5c}`.
    ///
    /// Escaped against formula injection: text that a spreadsheet would evaluate as a formula is prefixed with `'`.
    /// Text that begins with `'` is prefixed too. To restore the original, remove one `'`, then replace each `\u{…}` by
    /// its character.
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
            Self::Csv => format!("{NAMES}\r\n"),
        }
    }

    pub(crate) fn write(self, out: &mut String, event: &AuditEvent) {
        // Writing to a String cannot fail.
        let _ = match self {
            Self::JsonLines => write_json(out, event),
            Self::Csv => write_csv(out, event),
        };
    }
}

/// The names of the fields: those of [`AuditEvent::texts`], and the count.
const NAMES: &str = "id,time,event,result,account,keyId,actor,ip,userAgent,reason,count";

fn write_json(out: &mut String, event: &AuditEvent) -> fmt::Result {
    out.push('{');
    for (name, text) in NAMES.split(',').zip(event.texts()) {
        write!(out, "\"{name}\":")?;
        match text {
            Some(text) => push_json_string(out, &text),
            None => out.push_str("null"),
        }
        out.push(',');
    }
    writeln!(out, "\"count\":{}}}", event.count)
}

/// All text is quoted, because some spreadsheets use another separator than a comma.
fn write_csv(out: &mut String, event: &AuditEvent) -> fmt::Result {
    for text in event.texts() {
        if let Some(text) = text {
            let text = text.replace(r"\u{", r"\u{5c}u{");
            let text = one_line(&text);
            let escape = if is_formula(&text) || text.starts_with('\'') { "'" } else { "" };
            write!(out, "\"{escape}{}\"", text.replace('"', "\"\""))?;
        }
        out.push(',');
    }
    write!(out, "{}\r\n", event.count)
}

/// Whether a spreadsheet could evaluate a line of text as a formula. Some spreadsheets ignore leading spaces, and some
/// accept full-width signs.
fn is_formula(line: &str) -> bool {
    line.trim_start().starts_with(['=', '+', '-', '@', '＝', '＋', '－', '＠'])
}
