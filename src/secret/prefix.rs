/// What every secret of a format begins with: `lnos_live_`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lead {
    text: Box<str>,
    /// So much of it is the prefix; the rest is the environment.
    prefix_len: usize,
    /// The first sixteen bytes, and which of them there are: compared at once, in place of a call.
    first: u128,
    mask: u128,
}

impl Lead {
    pub(crate) fn new(text: String, prefix_len: usize) -> Self {
        let (mut first, mut mask) = ([0; 16], [0; 16]);
        for (n, byte) in text.bytes().take(16).enumerate() {
            (first[n], mask[n]) = (byte, u8::MAX);
        }
        let (first, mask) = (u128::from_le_bytes(first), u128::from_le_bytes(mask));
        Self { text: text.into(), prefix_len, first, mask }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.text[..self.prefix_len]
    }

    /// Whether a text begins with it that may be a secret: none has fewer than sixteen bytes.
    #[inline]
    pub(crate) fn begins(&self, text: &[u8]) -> bool {
        let Some(first) = text.first_chunk() else { return false };
        u128::from_le_bytes(*first) & self.mask == self.first
            && (self.text.len() <= 16 || text.starts_with(self.text.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_begins_with_it_if_each_of_its_bytes_is_there() {
        let word = "abcdefghijklmnopqrstuvwxyz_";
        for len in 2..=word.len() {
            let lead = Lead::new(word[..len].into(), 2);
            assert_eq!((lead.as_str(), lead.prefix()), (&word[..len], "ab"));
            let mut text = format!("{}{}", &word[..len], "0".repeat(16)).into_bytes();
            assert!(lead.begins(&text));
            for place in 0..text.len() {
                text[place] ^= 1;
                assert_eq!(lead.begins(&text), place >= len, "{len} {place}");
                text[place] ^= 1;
            }
            assert!(!lead.begins(b""));
        }
    }
}
