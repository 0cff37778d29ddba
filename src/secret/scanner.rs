use crate::secret::{
    checksum::{Alphabet, Checksum},
    format::KeyFormat,
};

/// Rules with which secret scanners find leaked secrets of a format.
///
/// These rules cannot verify a checksum. A scanner that can run code should also
/// [`parse`](KeyFormat::parse) each match.
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

impl KeyFormat {
    /// Returns rules with which gitleaks, GitHub or a regular expression engine finds leaked secrets.
    ///
    /// # Examples
    /// ```
    /// let rules = keyward::secret::KeyFormat::builder("lc").build()?.scanner_rules();
    /// assert!(rules.regex.contains("lc_[0-9A-Za-z]{36}"));
    /// println!("{}", rules.gitleaks);
    /// # Ok::<(), keyward::secret::FormatError>(())
    /// ```
    pub fn scanner_rules(&self) -> ScannerRules {
        let secret = self.secret_pattern();
        let regex = format!("{BEFORE}({secret}){AFTER}");
        let name = self.secret_prefix().trim_end_matches('_');
        // A literal TOML string: the pattern contains no quote, so nothing needs escaping.
        let gitleaks = format!(
            "[[rules]]\nid = \"{name}-api-key\"\ndescription = \"API key beginning with {prefix}\"\n\
             regex = '''{regex}'''\nsecretGroup = 1\nkeywords = [\"{keyword}\"]\n",
            prefix = self.secret_prefix(),
            keyword = self.secret_prefix().to_ascii_lowercase(),
        );
        let github = GithubPattern { secret, before: BEFORE.into(), after: AFTER.into() };
        ScannerRules { regex, gitleaks, github }
    }

    /// The prefix needs no escaping: its only special character is `-`, which is special only inside
    /// brackets.
    fn secret_pattern(&self) -> String {
        let (prefix, body_len) = (self.secret_prefix(), self.body_len());
        let (class, base62) = (self.alphabet().regex_class(), Alphabet::Base62.regex_class());
        match self.checksum() {
            Checksum::None => format!("{prefix}[{class}]{{{body_len}}}"),
            Checksum::Crc32 if class == base62 => {
                format!("{prefix}[{class}]{{{}}}", body_len + Checksum::Crc32.len())
            }
            Checksum::Crc32 => format!("{prefix}[{class}]{{{body_len}}}[{base62}]{{6}}"),
        }
    }
}

/// Prevents matches inside a longer word. It consumes no character, because in a list of secrets the
/// separator is consumed by `AFTER` of the preceding match.
const BEFORE: &str = r"\b";
const AFTER: &str = "(?:$|[^0-9A-Za-z_-])";
