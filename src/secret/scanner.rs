use crate::secret::{checksum::Checksum, format::KeyFormat};

/// Rules that let secret scanners find leaked secrets of a format.
///
/// No rule can compute a checksum, so a scanner that can be given code should also
/// [`parse`](KeyFormat::parse) what it finds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScannerRules {
    /// A regular expression (RE2 syntax, no look-around) whose group 1 is the secret.
    pub regex: String,
    /// A rule for gitleaks, to be put into its `.gitleaks.toml`.
    pub gitleaks: String,
    /// The fields of a custom pattern for GitHub's secret scanning.
    pub github: GithubPattern,
}

/// The fields of a custom pattern, as GitHub's form asks for them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GithubPattern {
    /// "Secret format".
    pub secret: String,
    /// "Before secret": a boundary of words.
    pub before: String,
    /// "After secret".
    pub after: String,
}

impl KeyFormat {
    /// Rules with which gitleaks, GitHub or any regular expression engine finds leaked secrets.
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
        let name = self.lead().trim_end_matches('_');
        // A literal TOML string: no character of the pattern is a quote, so nothing needs escaping.
        let gitleaks = format!(
            "[[rules]]\nid = \"{name}-api-key\"\ndescription = \"API key beginning with {lead}\"\n\
             regex = '''{regex}'''\nsecretGroup = 1\nkeywords = [\"{keyword}\"]\n",
            lead = self.lead(),
            keyword = self.lead().to_ascii_lowercase(),
        );
        let github = GithubPattern { secret, before: BEFORE.into(), after: AFTER.into() };
        ScannerRules { regex, gitleaks, github }
    }

    /// Prefix and environment have no character that a regular expression would read as a command,
    /// but for `-`, which is one only inside brackets.
    fn secret_pattern(&self) -> String {
        let (lead, class, body) = (self.lead(), self.alphabet().class(), self.body_len());
        match self.checksum() {
            Checksum::None => format!("{lead}[{class}]{{{body}}}"),
            Checksum::Crc32 if class == BASE62_CLASS => format!("{lead}[{class}]{{{}}}", body + 6),
            Checksum::Crc32 => format!("{lead}[{class}]{{{body}}}[{BASE62_CLASS}]{{6}}"),
        }
    }
}

const BASE62_CLASS: &str = crate::secret::alphabet::Alphabet::Base62.class();
/// Not inside a longer word, where the same characters would be part of something else. It takes no
/// character, because the one between two secrets of a list is taken by what comes after the first.
const BEFORE: &str = r"\b";
const AFTER: &str = "(?:$|[^0-9A-Za-z_-])";
