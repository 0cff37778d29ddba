use p256::ecdsa::{Signature, VerifyingKey, signature::Verifier};
use serde::{Deserialize, de::IgnoredAny};

use base64::{Engine as _, engine::general_purpose::STANDARD};

/// What GitHub has sent, byte for byte.
#[derive(Clone, Copy)]
#[must_use]
pub struct LeakReport<'a> {
    pub(super) body: &'a [u8],
    pub(super) identifier: &'a [u8],
    signature: &'a [u8],
}

/// A secret that was found, perhaps.
#[derive(Deserialize)]
pub(super) struct Match {
    pub(super) token: String,
    #[serde(default, rename = "type")]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) url: String,
    #[serde(default)]
    pub(super) source: String,
}

/// One that cannot be read must not keep the others from being.
#[derive(Deserialize)]
#[serde(untagged)]
enum Item {
    Match(Match),
    Unreadable(IgnoredAny),
}

impl<'a> LeakReport<'a> {
    /// A report of this body, without a signature so far.
    pub fn new(body: &'a [u8]) -> Self {
        Self { body, identifier: b"", signature: b"" }
    }

    /// The value of `Github-Public-Key-Identifier`.
    pub fn identifier(mut self, identifier: &'a [u8]) -> Self {
        self.identifier = identifier;
        self
    }

    /// The value of `Github-Public-Key-Signature`.
    pub fn signature(mut self, signature: &'a [u8]) -> Self {
        self.signature = signature;
        self
    }

    /// Whether the owner of this key has signed exactly this body.
    pub(super) fn is_signed_by(&self, key: &VerifyingKey) -> bool {
        let signature = STANDARD.decode(self.signature).ok();
        let signature = signature.and_then(|der| Signature::from_der(&der).ok());
        signature.is_some_and(|signature| key.verify(self.body, &signature).is_ok())
    }

    /// The matches; nothing, if the body is no list.
    pub(super) fn matches(&self) -> Option<impl Iterator<Item = Match>> {
        let items: Vec<Item> = serde_json::from_slice(self.body).ok()?;
        Some(items.into_iter().filter_map(|item| match item {
            Item::Match(found) => Some(found),
            Item::Unreadable(IgnoredAny) => None,
        }))
    }
}

/// Secrets of others stand in the body.
impl std::fmt::Debug for LeakReport<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeakReport").field("bytes", &self.body.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use p256::pkcs8::DecodePublicKey;

    use super::*;

    /// The sample of GitHub's documentation, signed by the key that GitHub published then.
    #[test]
    fn what_github_signed_is_known_as_such_and_nothing_else_is() {
        let key = "-----BEGIN PUBLIC KEY-----\n\
            MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEYAGMWO8XgCamYKMJS6jc/qgvSlAd\n\
            AjPuDPRcXU22YxgBrz+zoN19MzuRyW87qEt9/AmtoNP5GrobzUvQSyJFVw==\n\
            -----END PUBLIC KEY-----\n";
        let key = VerifyingKey::from_public_key_pem(key).unwrap();
        let body = br#"[{"source":"commit","token":"some_token","type":"some_type","url":"https://example.com/base-repo-url/"}]"#;
        let signature = b"MEQCIQDaMKqrGnE27S0kgMrEK0eYBmyG0LeZismAEz/BgZyt7AIfXt9fErtRS4XaeSt/AO1RtBY66YcAdjxji410VQV4xg==";
        assert!(LeakReport::new(body).signature(signature).is_signed_by(&key));
        assert!(!LeakReport::new(&body[1..]).signature(signature).is_signed_by(&key));
        assert!(!LeakReport::new(body).signature(&signature[4..]).is_signed_by(&key));
        assert!(!LeakReport::new(body).is_signed_by(&key));
    }
}
