use std::{borrow::Cow, collections::BTreeMap, fmt::Write as _, sync::Arc};

/// Input that was refused, and why.
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

    /// What was refused: `name`, `owner`, `scope`, ...
    pub fn what(&self) -> &'static str {
        self.what
    }
}

/// What a person called a key: 1 to 100 characters, trimmed.
///
/// It may hold any character but NUL; whatever shows it in a log or a mail goes through
/// [`one_line`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Name(Arc<str>);

impl Name {
    /// Reads a name.
    ///
    /// # Errors
    /// If it is empty, longer than 100 characters, or holds a NUL.
    pub fn new(text: &str) -> Result<Self, Invalid> {
        bounded("name", text.trim(), MAX_NAME).map(|text| Self(text.into()))
    }

    /// The name as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// As one harmless line, whatever it holds: see [`one_line`].
impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&one_line(&self.0))
    }
}

/// What the host wants to remember with a key: up to 50 pairs of text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata(Arc<BTreeMap<String, String>>);

impl Metadata {
    /// Reads pairs; of two with the same key the later one counts.
    ///
    /// # Errors
    /// If there are more than 50, a key is not 1 to 64 characters, a value has more than 1,000, or one
    /// holds a NUL.
    ///
    /// # Examples
    /// ```
    /// let metadata = keyward::model::Metadata::new([("team", "billing")])?;
    /// assert_eq!(metadata.get("team"), Some("billing"));
    /// # Ok::<(), keyward::model::Invalid>(())
    /// ```
    pub fn new<K: Into<String>, V: Into<String>>(
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, Invalid> {
        let pairs: BTreeMap<String, String> =
            pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        if pairs.len() > MAX_METADATA {
            return Err(Invalid::new("metadata", format!("more than {MAX_METADATA} pairs")));
        }
        for (key, value) in &pairs {
            bounded("metadata key", key, MAX_METADATA_KEY)?;
            if !value.is_empty() {
                bounded("metadata value", value, MAX_METADATA_VALUE)?;
            }
        }
        Ok(Self(Arc::new(pairs)))
    }

    /// The value under a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// All pairs, ordered by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

/// Text from outside as one harmless line: control characters, line ends, terminal escapes and
/// the marks that reorder text are written as `\u{…}`.
///
/// # Examples
/// ```
/// assert_eq!(keyward::model::one_line("ci\nroot"), r"ci\u{a}root");
/// ```
pub fn one_line(text: &str) -> Cow<'_, str> {
    if !text.contains(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut line = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_harmful(character) {
            // Writing to a String cannot fail.
            let _ = write!(line, "{}", character.escape_unicode());
        } else {
            line.push(character);
        }
    }
    Cow::Owned(line)
}

/// Controls, line and paragraph separators, and everything invisible that changes how the rest of
/// a line is read: bidirectional marks, zero-width characters, tags.
pub(crate) fn is_harmful(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

pub(crate) fn bounded<'a>(
    what: &'static str,
    text: &'a str,
    max: usize,
) -> Result<&'a str, Invalid> {
    let len = text.chars().take(max + 1).count();
    if len == 0 {
        Err(Invalid::new(what, "it is empty"))
    } else if len > max {
        Err(Invalid::new(what, format!("it has more than {max} characters")))
    } else if text.contains('\0') {
        Err(Invalid::new(what, "it holds a NUL character"))
    } else {
        Ok(text)
    }
}

/// Text that cannot be refused, such as a user agent, made to fit: cut, and without NUL.
pub(crate) fn fitted(text: &str, max: usize) -> String {
    text.chars().take(max).map(|c| if c == '\0' { '\u{fffd}' } else { c }).collect()
}

const MAX_NAME: usize = 100;
const MAX_METADATA: usize = 50;
const MAX_METADATA_KEY: usize = 64;
const MAX_METADATA_VALUE: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_shown_as_one_harmless_line_and_told_as_it_is() {
        let name = Name::new("ci\n\u{1b}[2J\u{202e}\u{200b}root").unwrap();
        assert_eq!(name.to_string(), r"ci\u{a}\u{1b}[2J\u{202e}\u{200b}root");
        assert_eq!(name.as_str(), "ci\n\u{1b}[2J\u{202e}\u{200b}root");
    }
}
