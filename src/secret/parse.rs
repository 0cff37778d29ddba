use crate::secret::format::KeyFormat;

/// A text that has the form of a secret. Whether it is a live one, only verification can tell.
#[derive(Clone, Copy)]
pub struct Parsed<'a> {
    /// ASCII, as whatever has the form of a secret.
    text: &'a [u8],
    hint_len: usize,
}

impl<'a> Parsed<'a> {
    /// The whole text as it was presented.
    pub fn expose(&self) -> &'a str {
        ascii(self.text)
    }

    /// The part that may be shown again: `lnos_live_a1b2c3d4`.
    pub fn hint(&self) -> &'a str {
        ascii(&self.text[..self.hint_len])
    }
}

impl std::fmt::Debug for Parsed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Parsed").field(&self.hint()).finish()
    }
}

/// Why a text cannot be a secret of a format. For logs and metrics; a caller of an API is told
/// only that the key is not valid.
///
/// Ordered by how far parsing came, so that of several formats the nearest can be named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// Longer than any secret: more than 512 bytes.
    #[error("longer than 512 bytes")]
    TooLong,
    /// It does not begin with the prefix.
    #[error("wrong prefix")]
    Prefix,
    /// The prefix is right, the environment behind it is not.
    #[error("wrong environment")]
    Environment,
    /// Too short or too long.
    #[error("wrong length")]
    Length,
    /// A character that the alphabet does not have. Where there is a checksum, that is looked at
    /// before, and does not fit either: garbage shall cost little.
    #[error("a character outside the alphabet")]
    Alphabet,
    /// The checksum does not fit the text: most likely a typing error.
    #[error("wrong checksum")]
    Checksum,
}

impl KeyFormat {
    /// Tells, offline and without allocating, whether a text has the form of a secret.
    ///
    /// # Errors
    /// The first rule that the text breaks.
    ///
    /// # Examples
    /// ```
    /// use keyward::secret::Malformed;
    ///
    /// let format = keyward::secret::KeyFormat::builder("lc").build()?;
    /// let secret = format.generate()?;
    /// assert_eq!(format.parse(secret.expose()).unwrap().expose(), secret.expose());
    /// assert_eq!(format.parse("ghp_16C7e42F292c6912E7").unwrap_err(), Malformed::Prefix);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn parse<'a, T: AsRef<[u8]> + ?Sized>(
        &self,
        presented: &'a T,
    ) -> Result<Parsed<'a>, Malformed> {
        self.parse_bytes(presented.as_ref())
    }

    pub(crate) fn parse_bytes<'a>(&self, bytes: &'a [u8]) -> Result<Parsed<'a>, Malformed> {
        self.check(bytes)?;
        Ok(Parsed { text: bytes, hint_len: self.lead().len() + self.hint_len() })
    }

    /// Whether a text has the form of a secret. Not generic, so that it is compiled here, together
    /// with what it calls for every byte.
    pub(crate) fn check(&self, bytes: &[u8]) -> Result<(), Malformed> {
        if bytes.len() != self.total_len() || !self.lead.begins(bytes) {
            return Err(self.unlike(bytes));
        }
        let (text, sum) = bytes.split_at(bytes.len() - self.checksum.len());
        if !self.checksum.matches(self.begun, text, sum) {
            return Err(Malformed::Checksum);
        }
        if !self.alphabet.has_all(&text[self.lead().len()..]) {
            return Err(Malformed::Alphabet);
        }
        Ok(())
    }

    /// What is wrong with a text that begins in another way, or is not as long.
    #[cold]
    fn unlike(&self, bytes: &[u8]) -> Malformed {
        if bytes.len() > MAX_LEN {
            Malformed::TooLong
        } else if bytes.starts_with(self.lead().as_bytes()) {
            Malformed::Length
        } else if bytes.starts_with(self.lead.prefix().as_bytes()) {
            Malformed::Environment
        } else {
            Malformed::Prefix
        }
    }
}

fn ascii(text: &[u8]) -> &str {
    std::str::from_utf8(text).expect("lead, alphabets and checksum are ASCII")
}

/// No format is longer, and nothing longer is looked at.
pub(crate) const MAX_LEN: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_outside_the_alphabet_is_refused_also_if_the_checksum_fits() {
        let format = KeyFormat::builder("lc").build().unwrap();
        let with_body = |body: String| {
            let mut text = format!("lc_{body}");
            format.checksum().append_to(&mut text);
            format.check(text.as_bytes())
        };
        let body = "a".repeat(format.body_len());
        assert_eq!(with_body(body.clone()), Ok(()));
        for place in 0..body.len() - 1 {
            for wrong in ["-a", "a-", "\u{e4}"] {
                let wrong = format!("{}{wrong}{}", &body[..place], &body[place + 2..]);
                assert_eq!(with_body(wrong), Err(Malformed::Alphabet), "{place}");
            }
        }
    }
}
