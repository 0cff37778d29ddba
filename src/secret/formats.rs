use crate::secret::{
    builder::FormatError,
    format::KeyFormat,
    parse::{Malformed, Parsed},
};

/// The format that new secrets get, and the older ones that are accepted beside it.
#[derive(Clone, Debug)]
pub struct Formats {
    current: KeyFormat,
    older: Vec<KeyFormat>,
}

impl Formats {
    /// New secrets get `current`, and nothing else is accepted.
    pub fn new(current: KeyFormat) -> Self {
        Self { current, older: Vec::new() }
    }

    /// Accepts secrets of `older` too, for as long as keys with it are alive.
    ///
    /// # Errors
    /// [`FormatError::Ambiguous`] if some text could be claimed by two of the formats.
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
        if let Some(clash) = self.accepted().find(|format| format.overlaps(&older)) {
            return Err(FormatError::Ambiguous(clash.lead().into(), older.lead().into()));
        }
        self.older.push(older);
        Ok(self)
    }

    /// How many characters a hint of one of them has at most.
    #[cfg(feature = "server")]
    pub(crate) fn longest_hint(&self) -> usize {
        let hints = self.accepted().map(|format| format.lead().len() + format.hint_len());
        hints.max().unwrap_or_default()
    }

    /// The format of new secrets.
    pub fn current(&self) -> &KeyFormat {
        &self.current
    }

    /// What may be shown of a secret: [`Parsed::hint`], or nothing if it is of none of the formats.
    pub fn hint(&self, secret: &crate::secret::secret::Secret) -> String {
        self.parse(secret.expose()).map(|parsed| parsed.hint().into()).unwrap_or_default()
    }

    /// All accepted formats, the current one first.
    pub fn accepted(&self) -> impl Iterator<Item = &KeyFormat> {
        std::iter::once(&self.current).chain(&self.older)
    }

    /// Parses a text by the one format that can claim it.
    ///
    /// # Errors
    /// What the format that came nearest has against the text.
    #[inline]
    pub fn parse<'a, T: AsRef<[u8]> + ?Sized>(
        &self,
        presented: &'a T,
    ) -> Result<Parsed<'a>, Malformed> {
        self.parse_bytes(presented.as_ref())
    }

    fn parse_bytes<'a>(&self, presented: &'a [u8]) -> Result<Parsed<'a>, Malformed> {
        self.nearest(|format| format.parse_bytes(presented))
    }

    /// Whether some format can claim the text.
    #[cfg_attr(not(feature = "server"), expect(dead_code, reason = "verification asks this"))]
    #[inline]
    pub(crate) fn check(&self, presented: &[u8]) -> Result<(), Malformed> {
        self.nearest(|format| format.check(presented))
    }

    #[inline]
    fn nearest<T>(
        &self,
        claim: impl Fn(&KeyFormat) -> Result<T, Malformed>,
    ) -> Result<T, Malformed> {
        let mut nearest = match claim(&self.current) {
            Ok(claimed) => return Ok(claimed),
            Err(malformed) => malformed,
        };
        for format in &self.older {
            match claim(format) {
                Ok(claimed) => return Ok(claimed),
                Err(malformed) => nearest = nearest.max(malformed),
            }
        }
        Err(nearest)
    }
}

impl From<KeyFormat> for Formats {
    fn from(current: KeyFormat) -> Self {
        Self::new(current)
    }
}

impl KeyFormat {
    /// Whether some text has the form of both, checksums aside: equal length, one lead continuing
    /// the other, and what it continues with lying in the other's alphabet.
    fn overlaps(&self, other: &Self) -> bool {
        let (short, long) =
            if self.lead().len() <= other.lead().len() { (self, other) } else { (other, self) };
        self.total_len() == other.total_len()
            && long.lead().strip_prefix(short.lead()).is_some_and(|more| {
                more.bytes().all(|byte| short.alphabet().contains(byte))
                    && more.len() <= short.body_len()
            })
    }
}
