use crate::secret::checksum::{Alphabet, Checksum, PrefixCrc};

/// The format of a product's secrets: `lnos_live_` + random body + checksum.
///
/// All three parts have a fixed length, so a body may contain any character, also one that looks like a separator.
///
/// # Examples
/// ```
/// use keyward::{Alphabet, Checksum, KeyFormat, secret::Malformed};
///
/// let format = KeyFormat::builder("lc").build()?;
/// let secret = format.generate()?;
/// println!("Copy it now, it is not shown again: {}", secret.expose());
/// let parsed = format.parse(secret.expose()).unwrap();
/// assert_eq!(parsed.hint().len(), "lc_".len() + 8);
/// assert_eq!(format.parse("ghp_16C7e42F292c6912E7").unwrap_err(), Malformed::Prefix);
///
/// let hex = KeyFormat::builder("lnos").environment("live").alphabet(Alphabet::Hex).bits(128);
/// let format = hex.checksum(Checksum::None).build()?;
/// assert_eq!(format.to_string(), "lnos_live_{32 hex}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFormat {
    /// `lnos_live_`: the prefix `lnos_`, then the environment `live_`.
    secret_prefix: Box<str>,
    /// Length of the part before the environment.
    pub(super) prefix_len: usize,
    pub(super) alphabet: Alphabet,
    pub(super) body_len: usize,
    pub(super) checksum: Checksum,
    pub(super) prefix_crc: PrefixCrc,
    /// Length of a hint, including the secret prefix.
    pub(crate) hint_len: usize,
}

impl KeyFormat {
    /// Starts a format with a prefix such as `lc`: by default, `lc_` and 30 base62 characters before the checksum.
    pub fn builder(prefix: impl Into<String>) -> KeyFormatBuilder {
        KeyFormatBuilder {
            prefix: prefix.into(),
            environment: None,
            alphabet: Alphabet::Base62,
            bits: 178,
            total_len: None,
            checksum: Checksum::Crc32,
            hint_len: 8,
        }
    }

    /// Returns the text with which every secret begins, including the environment: `lnos_live_`.
    pub fn secret_prefix(&self) -> &str {
        &self.secret_prefix
    }

    /// Returns the number of characters of a secret.
    pub fn total_len(&self) -> usize {
        self.secret_prefix.len() + self.body_len + self.checksum.len()
    }

    /// Returns the number of random bits of a secret, at least 128.
    pub fn bits(&self) -> u32 {
        (self.body_len as f64 * self.alphabet.bits_per_character()) as u32
    }

    /// Returns rules with which gitleaks, GitHub or a regular expression engine finds leaked secrets.
    pub fn scanner_rules(&self) -> ScannerRules {
        let (prefix, class) = (self.secret_prefix(), self.alphabet.regex_class());
        // The prefix needs no escaping: its only special character is `-`, which is special only inside brackets.
        let with = |characters: usize| format!("{prefix}[{class}]{{{characters}}}");
        let secret = match (self.checksum, self.alphabet) {
            (Checksum::None, _) => with(self.body_len),
            (Checksum::Crc32, Alphabet::Base62) => with(self.body_len + self.checksum.len()),
            (Checksum::Crc32, _) => with(self.body_len) + "[0-9A-Za-z]{6}",
        };
        let regex = format!("{BEFORE}({secret}){AFTER}");
        let (name, keyword) = (prefix.trim_end_matches('_'), prefix.to_ascii_lowercase());
        // A literal TOML string: the pattern contains no quote, so nothing needs escaping.
        let gitleaks = format!(
            "[[rules]]\nid = \"{name}-api-key\"\ndescription = \"API key beginning with {prefix}\"\n\
             regex = '''{regex}'''\nsecretGroup = 1\nkeywords = [\"{keyword}\"]\n"
        );
        let github = GithubPattern { secret, before: BEFORE.into(), after: AFTER.into() };
        ScannerRules { regex, gitleaks, github }
    }
}

impl std::fmt::Display for KeyFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let alphabet = match self.alphabet {
            Alphabet::Base62 => "base62",
            Alphabet::Hex => "hex",
            Alphabet::Base64Url => "base64url",
        };
        let checksum = if self.checksum == Checksum::Crc32 { "{6 CRC-32}" } else { "" };
        write!(f, "{}{{{} {alphabet}}}{checksum}", self.secret_prefix, self.body_len)
    }
}

/// Builds a [`KeyFormat`]. All rules are checked by [`build`](KeyFormatBuilder::build).
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct KeyFormatBuilder {
    prefix: String,
    environment: Option<String>,
    alphabet: Alphabet,
    bits: u32,
    /// Replaces `bits`.
    total_len: Option<usize>,
    checksum: Checksum,
    hint_len: usize,
}

impl KeyFormatBuilder {
    /// Adds an environment after the prefix: `live` makes `lc_live_…`. Defaults to none.
    pub fn environment(self, environment: impl Into<String>) -> Self {
        Self { environment: Some(environment.into()), ..self }
    }

    /// Sets the characters of the body. Defaults to base62.
    pub fn alphabet(self, alphabet: Alphabet) -> Self {
        Self { alphabet, ..self }
    }

    /// Sets the minimum number of random bits of the body. Defaults to 178.
    pub fn bits(self, bits: u32) -> Self {
        Self { bits, total_len: None, ..self }
    }

    /// Sets the number of characters of the whole secret. Replaces [`bits`](KeyFormatBuilder::bits).
    pub fn total_len(self, characters: usize) -> Self {
        Self { total_len: Some(characters), ..self }
    }

    /// Sets the checksum at the end of the secret. Defaults to CRC-32 in six characters.
    pub fn checksum(self, checksum: Checksum) -> Self {
        Self { checksum, ..self }
    }

    /// Sets the number of body characters that a hint shows. Defaults to 8.
    pub fn hint_len(self, characters: usize) -> Self {
        Self { hint_len: characters, ..self }
    }

    /// Checks all rules and builds the format.
    ///
    /// # Errors
    /// A [`FormatError`] that names the violated rule and the remedy.
    pub fn build(self) -> Result<KeyFormat, FormatError> {
        let Self { prefix, environment, alphabet, bits, total_len, checksum, hint_len } = self;
        if !is_valid_word(&prefix) {
            return Err(FormatError::Prefix(prefix));
        }
        let mut secret_prefix = prefix + "_";
        let prefix_len = secret_prefix.len();
        if let Some(environment) = environment {
            if !is_valid_word(&environment) {
                return Err(FormatError::Environment(environment));
            }
            secret_prefix += &(environment + "_");
        }
        let fixed_len = secret_prefix.len() + checksum.len();
        let bits_per_character = alphabet.bits_per_character();
        let body_len = match total_len {
            Some(total) => total.saturating_sub(fixed_len),
            None => (f64::from(bits) / bits_per_character).ceil() as usize,
        };
        let bits_of = |characters: usize| (characters as f64 * bits_per_character) as u32;
        if bits_of(body_len) < MIN_BITS {
            return Err(FormatError::TooFewBits { bits: bits_of(body_len) });
        }
        let len = body_len.saturating_add(fixed_len);
        if len > MAX_SECRET_LEN {
            return Err(FormatError::TooLong { len });
        }
        let left = bits_of(body_len.saturating_sub(hint_len));
        if left < MIN_HIDDEN_BITS {
            return Err(FormatError::HintTooLong { hint: hint_len, left });
        }
        Ok(KeyFormat {
            prefix_crc: PrefixCrc::new(&secret_prefix, secret_prefix.len() + body_len),
            hint_len: secret_prefix.len() + hint_len,
            secret_prefix: secret_prefix.into(),
            prefix_len,
            alphabet,
            body_len,
            checksum,
        })
    }
}

fn is_valid_word(text: &str) -> bool {
    let is_part =
        |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
    text.len() <= 32
        && text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.split(['_', '-']).all(is_part)
}

/// Why a format was rejected when it was built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The prefix is empty, too long, or contains an invalid character.
    #[error("invalid prefix {0:?}: {WORD_RULE}")]
    Prefix(String),
    /// The environment is empty, too long, or contains an invalid character.
    #[error("invalid environment {0:?}: {WORD_RULE}")]
    Environment(String),
    /// The body has fewer than 128 random bits.
    #[error(
        "a body of {bits} random bits can be guessed; at least {MIN_BITS} are required: request more `bits` or a longer `total_len`"
    )]
    TooFewBits {
        /// The number of random bits that the format would have.
        bits: u32,
    },
    /// The whole secret would be longer than 512 bytes, the longest text that is parsed.
    #[error("a secret of {len} characters exceeds the maximum of {MAX_SECRET_LEN}: request fewer")]
    TooLong {
        /// The number of characters that a secret would have.
        len: usize,
    },
    /// The hint would leave fewer than 80 random bits hidden.
    #[error(
        "a hint of {hint} characters leaves only {left} random bits hidden; at least {MIN_HIDDEN_BITS} are required: shorten the hint"
    )]
    HintTooLong {
        /// The number of body characters that the hint would show.
        hint: usize,
        /// The number of random bits that would stay hidden.
        left: u32,
    },
    /// A text could be a secret of two formats that are accepted together.
    #[error(
        "a text could match both formats `{0}…` and `{1}…`: change the length, prefix or environment of one of them"
    )]
    Ambiguous(String, String),
}

/// Rules with which secret scanners find leaked secrets of a format. They cannot verify a checksum: a
/// scanner that can run code should also [`parse`](KeyFormat::parse) each match.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScannerRules {
    /// A regular expression (RE2 syntax, no look-around) with the secret in group 1.
    pub regex: String,
    /// A rule for the file `.gitleaks.toml` of gitleaks.
    pub gitleaks: String,
    /// The fields of a custom pattern for GitHub secret scanning.
    pub github: GithubPattern,
}

/// The fields of a custom pattern, named as in GitHub's form.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GithubPattern {
    /// "Secret format".
    pub secret: String,
    /// "Before secret": a word boundary.
    pub before: String,
    /// "After secret".
    pub after: String,
}

/// The longest secret of any format, in bytes. A longer text is rejected without being read.
pub(super) const MAX_SECRET_LEN: usize = 512;
const WORD_RULE: &str =
    "use 1 to 32 letters and digits that begin with a letter, with single `_` or `-` in between";
const MIN_BITS: u32 = 128;
/// Hints appear in lists and mails, so the hidden rest must resist guessing online and offline.
/// `lnos_live_` with eight hex characters shown leaves 96 bits.
const MIN_HIDDEN_BITS: u32 = 80;
/// Prevents matches inside a longer word. It consumes no character, because in a list of secrets the
/// separator is consumed by `AFTER` of the preceding match.
const BEFORE: &str = r"\b";
const AFTER: &str = "(?:$|[^0-9A-Za-z_-])";
