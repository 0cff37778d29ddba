use std::{borrow::Cow, collections::BTreeMap, fmt::Write as _, sync::Arc};

use crate::model::bounds::{
    MAX_METADATA_KEY_CHARS, MAX_METADATA_PAIRS, MAX_METADATA_VALUE_CHARS, MAX_NAME_CHARS,
};

/// An input is invalid. `Display` names the input and the reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid {what}: {why}")]
pub struct Invalid {
    what: &'static str,
    why: Cow<'static, str>,
}

impl Invalid {
    pub(crate) fn new(what: &'static str, why: impl Into<Cow<'static, str>>) -> Self {
        Self { what, why: why.into() }
    }

    /// Returns which input is invalid: `name`, `tenant`, `scope`, …
    pub fn what(&self) -> &'static str {
        self.what
    }
}

/// The name that a user gave to a key: 1 to 100 characters, without leading and trailing whitespace.
///
/// To show it in a log or a mail, use `Display`, which escapes it like [`one_line`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Name(Arc<str>);

impl Name {
    /// Trims and checks a name.
    ///
    /// # Errors
    /// If the name is empty, longer than 100 characters, or contains a NUL character.
    pub fn new(text: &str) -> Result<Self, Invalid> {
        checked_text("name", text.trim(), MAX_NAME_CHARS).map(|text| Self(text.into()))
    }

    /// Returns the name without escapes.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&one_line(&self.0))
    }
}

/// Data that the host stores with a key: up to 50 pairs of strings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata(
    /// `None` without pairs, as of most keys: they allocate nothing.
    Option<Arc<BTreeMap<String, String>>>,
);

impl Metadata {
    /// Checks and stores pairs. If a key occurs twice, the later value wins.
    ///
    /// # Errors
    /// If there are more than 50 pairs, a key does not have 1 to 64 characters, a value has more than
    /// 1,000 characters, or one of them contains a NUL character.
    pub fn new<K: Into<String>, V: Into<String>>(
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, Invalid> {
        let owned = pairs.into_iter().map(|(key, value)| (key.into(), value.into()));
        let pairs: BTreeMap<String, String> = owned.collect();
        if pairs.len() > MAX_METADATA_PAIRS {
            return Err(Invalid::new("metadata", "there are more than 50 pairs"));
        }
        for (key, value) in &pairs {
            checked_text("metadata key", key, MAX_METADATA_KEY_CHARS)?;
            if !value.is_empty() {
                checked_text("metadata value", value, MAX_METADATA_VALUE_CHARS)?;
            }
        }
        Ok(Self((!pairs.is_empty()).then(|| Arc::new(pairs))))
    }

    /// Returns the value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.as_ref()?.get(key).map(String::as_str)
    }

    /// Returns all pairs, ordered by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let pairs = self.0.iter().flat_map(|pairs| pairs.iter());
        pairs.map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

/// Escapes untrusted text for a single line of a log or a terminal.
///
/// Control characters, line breaks, invisible characters and those that reorder text become `\u{…}`.
///
/// # Examples
/// ```
/// assert_eq!(keyward::model::one_line("ci\nroot"), r"ci\u{a}root");
/// ```
pub fn one_line(text: &str) -> Cow<'_, str> {
    if !text.contains(needs_escape) {
        return Cow::Borrowed(text);
    }
    let mut line = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if needs_escape(character) {
            line.extend(character.escape_unicode());
        } else {
            line.push(character);
        }
    }
    Cow::Owned(line)
}

/// Whether a character is a control character, a line or paragraph separator, a bidirectional mark, or invisible: the
/// characters that Unicode calls default ignorable, such as fillers, zero-width characters and tags. The variation
/// selectors U+FE00 to U+FE0F are left, because emoji contain them.
pub(crate) fn needs_escape(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// Appends a JSON string. Escapes what [`one_line`] escapes, so that it can be shown in a terminal. Without
/// `serde_json`, which escapes less and is not a dependency of the default features.
pub(crate) fn push_json_string(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            character => push_json_character(out, character),
        }
    }
    out.push('"');
}

/// Appends a character of a JSON text, escaped if [`one_line`] escapes it.
pub(crate) fn push_json_character(out: &mut String, character: char) {
    if !needs_escape(character) {
        return out.push(character);
    }
    for unit in character.encode_utf16(&mut [0; 2]) {
        // Writing to a String cannot fail.
        let _ = write!(out, "\\u{unit:04x}");
    }
}

/// Checks that a text has 1 to `max` characters and no NUL character, which PostgreSQL cannot store.
pub(crate) fn checked_text<'a>(
    what: &'static str,
    text: &'a str,
    max: usize,
) -> Result<&'a str, Invalid> {
    let why: Cow<'static, str> = match text.chars().take(max + 1).count() {
        0 => "it is empty".into(),
        len if len > max => format!("it has more than {max} characters").into(),
        _ if text.contains('\0') => "it contains a NUL character".into(),
        _ => return Ok(text),
    };
    Err(Invalid { what, why })
}

/// Truncates a text that must not be rejected, such as a user agent, and replaces NUL characters.
pub(crate) fn truncated(text: &str, max: usize) -> String {
    text.chars().take(max).map(|c| if c == '\0' { '\u{fffd}' } else { c }).collect()
}
