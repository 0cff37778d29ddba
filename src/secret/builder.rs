use crate::secret::{
    alphabet::Alphabet, checksum::Checksum, format::KeyFormat, parse::MAX_LEN, prefix::Lead,
};

/// Describes a [`KeyFormat`]; every rule is checked by [`build`](KeyFormatBuilder::build).
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct KeyFormatBuilder {
    prefix: String,
    environment: Option<String>,
    alphabet: Alphabet,
    length: Length,
    checksum: Checksum,
    hint: usize,
}

/// Why a format was refused when it was built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The prefix is empty, too long, or has a character that it may not have.
    #[error(
        "prefix {0:?} is refused: use 1 to {MAX_WORD} letters and digits, beginning with a letter, with single `_` or `-` inside"
    )]
    Prefix(String),
    /// The environment is empty, too long, or has a character that it may not have.
    #[error(
        "environment {0:?} is refused: use 1 to {MAX_WORD} letters and digits, beginning with a letter, with single `_` or `-` inside"
    )]
    Environment(String),
    /// Fewer than 128 random bits.
    #[error(
        "a body of {bits} random bits can be guessed; at least {MIN_BITS} are needed: ask for more `bits` or a longer `total_len`"
    )]
    TooFewBits {
        /// How many it would have had.
        bits: u32,
    },
    /// The whole secret would be longer than 512 bytes, the longest that is ever parsed.
    #[error("a secret of {len} characters is longer than {MAX_LEN}; ask for fewer")]
    TooLong {
        /// How long it would have been.
        len: usize,
    },
    /// The hint would give away so much that too little stays secret.
    #[error(
        "a hint of {hint} characters leaves only {left} random bits secret; at least {MIN_HIDDEN_BITS} must stay hidden: shorten it"
    )]
    HintTooLong {
        /// The characters of the body that the hint would show.
        hint: usize,
        /// The random bits that would stay hidden.
        left: u32,
    },
    /// Two formats accepted side by side could both claim one text.
    #[error(
        "formats `{0}…` and `{1}…` could both claim one text: give one of them another length, prefix or environment"
    )]
    Ambiguous(String, String),
}

impl KeyFormat {
    /// Begins a format with a prefix such as `lc`; unless told otherwise `lc_`, thirty base62
    /// characters (178 random bits) and six of checksum, the hint showing eight of the body.
    pub fn builder(prefix: impl Into<String>) -> KeyFormatBuilder {
        KeyFormatBuilder {
            prefix: prefix.into(),
            environment: None,
            alphabet: Alphabet::Base62,
            length: Length::Bits(DEFAULT_BITS),
            checksum: Checksum::Crc32,
            hint: DEFAULT_HINT,
        }
    }
}

impl KeyFormatBuilder {
    /// Puts an environment behind the prefix: `live` makes `lc_live_…`.
    pub fn environment(mut self, environment: impl Into<String>) -> Self {
        self.environment = Some(environment.into());
        self
    }

    /// The characters that the body is drawn from; base62 by default.
    pub fn alphabet(mut self, alphabet: Alphabet) -> Self {
        self.alphabet = alphabet;
        self
    }

    /// The body gets as many characters as `bits` random bits need; 178 by default.
    pub fn bits(mut self, bits: u32) -> Self {
        self.length = Length::Bits(bits);
        self
    }

    /// The whole secret, from prefix to checksum, gets exactly this many characters.
    pub fn total_len(mut self, characters: usize) -> Self {
        self.length = Length::Total(characters);
        self
    }

    /// What ends the secret; six characters of CRC-32 by default.
    pub fn checksum(mut self, checksum: Checksum) -> Self {
        self.checksum = checksum;
        self
    }

    /// How many characters of the body the hint shows; eight by default.
    pub fn hint_len(mut self, characters: usize) -> Self {
        self.hint = characters;
        self
    }

    /// Checks every rule and builds the format.
    ///
    /// # Errors
    /// A [`FormatError`] that names the rule and what to change.
    ///
    /// # Examples
    /// ```
    /// use keyward::{Alphabet, Checksum, KeyFormat};
    ///
    /// let format = KeyFormat::builder("lnos")
    ///     .environment("live")
    ///     .alphabet(Alphabet::Hex)
    ///     .bits(128)
    ///     .checksum(Checksum::None)
    ///     .build()?;
    /// assert_eq!(format.to_string(), "lnos_live_{32 hex}");
    ///
    /// let weak = KeyFormat::builder("lc").bits(64).build();
    /// assert!(weak.unwrap_err().to_string().contains("can be guessed"));
    /// # Ok::<(), keyward::secret::FormatError>(())
    /// ```
    pub fn build(self) -> Result<KeyFormat, FormatError> {
        if !is_word(&self.prefix) {
            return Err(FormatError::Prefix(self.prefix));
        }
        let mut lead = format!("{}_", self.prefix);
        let prefix_len = lead.len();
        if let Some(environment) = self.environment {
            if !is_word(&environment) {
                return Err(FormatError::Environment(environment));
            }
            lead.push_str(&environment);
            lead.push('_');
        }
        let around = lead.len() + self.checksum.len();
        let per_character = self.alphabet.bits_per_character();
        let body = match self.length {
            Length::Bits(bits) => (f64::from(bits) / per_character).ceil() as usize,
            Length::Total(total) => total.saturating_sub(around),
        };
        let bits_of = |characters: usize| (characters as f64 * per_character) as u32;
        if bits_of(body) < MIN_BITS {
            return Err(FormatError::TooFewBits { bits: bits_of(body) });
        }
        if body.saturating_add(around) > MAX_LEN {
            return Err(FormatError::TooLong { len: body.saturating_add(around) });
        }
        let left = bits_of(body.saturating_sub(self.hint));
        if left < MIN_HIDDEN_BITS {
            return Err(FormatError::HintTooLong { hint: self.hint, left });
        }
        let lead = Lead::new(lead, prefix_len);
        Ok(KeyFormat::from_parts(lead, self.alphabet, body, self.checksum, self.hint))
    }
}

#[derive(Clone, Copy, Debug)]
enum Length {
    Bits(u32),
    Total(usize),
}

fn is_word(text: &str) -> bool {
    let bytes = text.as_bytes();
    let joined = |pair: &[u8]| !pair[0].is_ascii_alphanumeric() && !pair[1].is_ascii_alphanumeric();
    bytes.len() <= MAX_WORD
        && bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
        && !bytes.windows(2).any(joined)
}

const MAX_WORD: usize = 32;
const MIN_BITS: u32 = 128;
/// A hint is shown in lists and mails; what it leaves hidden must still be beyond guessing online
/// and offline, and 96 bits are what `lnos_live_` with eight hex characters shown leaves.
const MIN_HIDDEN_BITS: u32 = 80;
const DEFAULT_BITS: u32 = 178;
const DEFAULT_HINT: usize = 8;
