use crate::secret::{
    Secret,
    format::{FormatError, KeyFormat, MAX_SECRET_LEN},
};

/// The format of new secrets, and older formats that are still accepted.
#[derive(Clone, Debug)]
pub struct Formats {
    current: KeyFormat,
    older: Vec<KeyFormat>,
}

impl Formats {
    /// Accepts only the format `current`, which is also that of new secrets.
    pub fn new(current: KeyFormat) -> Self {
        Self { current, older: Vec::new() }
    }

    /// Also accepts secrets of an `older` format. Remove it once no live key uses it.
    ///
    /// # Errors
    /// [`FormatError::Ambiguous`] if a text could match two of the formats.
    ///
    /// # Examples
    /// ```
    /// use keyward::{Formats, KeyFormat};
    ///
    /// let formats = Formats::new(KeyFormat::builder("lk").build()?)
    ///     .accept(KeyFormat::builder("api").build()?)?;
    /// let old = formats.accepted().nth(1).unwrap().generate()?;
    /// assert!(formats.parse(old.expose()).is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn accept(mut self, older: KeyFormat) -> Result<Self, FormatError> {
        if let Some(clash) = self.accepted().find(|format| overlaps(format, &older)) {
            let (clash, older) = (clash.secret_prefix(), older.secret_prefix());
            return Err(FormatError::Ambiguous(clash.into(), older.into()));
        }
        self.older.push(older);
        Ok(self)
    }

    /// Returns the format of new secrets.
    pub fn current(&self) -> &KeyFormat {
        &self.current
    }

    /// Returns all accepted formats, the current one first.
    pub fn accepted(&self) -> impl Iterator<Item = &KeyFormat> {
        std::iter::once(&self.current).chain(&self.older)
    }

    /// Returns the [`hint`](Parsed::hint) of a secret; empty if no format matches it.
    pub fn hint(&self, secret: &Secret) -> String {
        self.parse(secret.expose()).map(|parsed| parsed.hint().into()).unwrap_or_default()
    }

    /// Parses a text with the one accepted format that can match it.
    ///
    /// # Errors
    /// The error of the format that matched furthest.
    #[inline]
    pub fn parse<'a, T: AsRef<[u8]> + ?Sized>(
        &self,
        presented: &'a T,
    ) -> Result<Parsed<'a>, Malformed> {
        let presented = presented.as_ref();
        self.check(presented).map(|format| format.parsed(presented))
    }

    /// Returns the accepted format that matches the text.
    #[inline]
    pub(crate) fn check(&self, presented: &[u8]) -> Result<&KeyFormat, Malformed> {
        let matches = |format| KeyFormat::check(format, presented).map(|()| format);
        self.older.iter().fold(matches(&self.current), |found, format| {
            found.or_else(|furthest| matches(format).map_err(|error| error.max(furthest)))
        })
    }
}

impl From<KeyFormat> for Formats {
    fn from(current: KeyFormat) -> Self {
        Self::new(current)
    }
}

/// Whether some text matches both formats, checksums aside: secrets have the same length, one secret
/// prefix begins with the other, and the rest of it consists of characters of the other's alphabet.
fn overlaps(a: &KeyFormat, b: &KeyFormat) -> bool {
    let (short, long) =
        if a.secret_prefix().len() <= b.secret_prefix().len() { (a, b) } else { (b, a) };
    short.total_len() == long.total_len()
        && long.secret_prefix().strip_prefix(short.secret_prefix()).is_some_and(|rest| {
            short.alphabet.contains_all(rest.as_bytes()) && rest.len() <= short.body_len
        })
}

impl KeyFormat {
    /// Checks, offline and without allocating, whether a text has the form of a secret.
    ///
    /// # Errors
    /// The first rule that the text violates.
    pub fn parse<'a, T: AsRef<[u8]> + ?Sized>(
        &self,
        presented: &'a T,
    ) -> Result<Parsed<'a>, Malformed> {
        let presented = presented.as_ref();
        self.check(presented).map(|()| self.parsed(presented))
    }

    /// Returns a text that [`check`](Self::check) accepts.
    fn parsed<'a>(&self, checked: &'a [u8]) -> Parsed<'a> {
        let text = std::str::from_utf8(checked).expect("prefix, alphabets and checksum are ASCII");
        Parsed { text, hint_len: self.hint_len }
    }

    /// Not generic, so that it is compiled in this crate together with the loops that it calls.
    fn check(&self, bytes: &[u8]) -> Result<(), Malformed> {
        let prefix = self.secret_prefix().as_bytes();
        if bytes.len() != self.total_len() || !bytes.starts_with(prefix) {
            return Err(self.mismatch(bytes));
        }
        let (text, checksum) = bytes.split_at(bytes.len() - self.checksum.len());
        // The checksum first: it rejects random text sooner than the alphabet does.
        if !self.checksum.matches(self.prefix_crc, text, checksum) {
            return Err(Malformed::Checksum);
        }
        if !self.alphabet.contains_all(&text[prefix.len()..]) {
            return Err(Malformed::Alphabet);
        }
        Ok(())
    }

    /// The error for a text with a wrong prefix or length.
    #[cold]
    fn mismatch(&self, bytes: &[u8]) -> Malformed {
        if bytes.len() > MAX_SECRET_LEN {
            Malformed::TooLong
        } else if bytes.starts_with(self.secret_prefix().as_bytes()) {
            Malformed::Length
        } else if bytes.starts_with(&self.secret_prefix().as_bytes()[..self.prefix_len]) {
            Malformed::Environment
        } else {
            Malformed::Prefix
        }
    }
}

/// A text that has the form of a secret. Only verification can find out whether its key is live.
#[derive(Clone, Copy)]
pub struct Parsed<'a> {
    text: &'a str,
    hint_len: usize,
}

impl<'a> Parsed<'a> {
    /// Returns the whole text as presented.
    pub fn expose(&self) -> &'a str {
        self.text
    }

    /// Returns the part that may be shown again: `lnos_live_a1b2c3d4`.
    pub fn hint(&self) -> &'a str {
        &self.text[..self.hint_len]
    }
}

impl std::fmt::Debug for Parsed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Parsed").field(&self.hint()).finish()
    }
}

/// Why a text is not a secret of a format, ordered by how far the text matched.
///
/// For logs and metrics. The response of an API reports only that the key is not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// Longer than 512 bytes, the longest possible secret.
    #[error("longer than 512 bytes")]
    TooLong,
    /// It does not begin with the prefix.
    #[error("wrong prefix")]
    Prefix,
    /// It begins with the prefix, but not with the environment after it.
    #[error("wrong environment")]
    Environment,
    /// Too short or too long.
    #[error("wrong length")]
    Length,
    /// It contains a character outside the alphabet. If the format has a checksum, which is checked first,
    /// almost every such text is reported as [`Checksum`](Malformed::Checksum).
    #[error("a character outside the alphabet")]
    Alphabet,
    /// The checksum does not match: most likely a typing error.
    #[error("wrong checksum")]
    Checksum,
}
