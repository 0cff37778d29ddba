use zeroize::Zeroize;

/// The text that a client presents. It is shown once and never stored.
///
/// There is no `Display`, `Serialize` or `PartialEq`, `Debug` shows nothing of it, and the memory is
/// wiped when it is dropped; [`expose`](Secret::expose) is the one way to the text.
///
/// # Examples
/// ```
/// let secret = keyward::secret::KeyFormat::builder("lc").build()?.generate()?;
/// assert_eq!(format!("{secret:?}"), "Secret([redacted])");
/// println!("Copy it now, it is not shown again: {}", secret.expose());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
#[must_use = "a secret cannot be shown again"]
pub struct Secret(String);

impl Secret {
    /// The text itself. Every call is a place to look at when a secret must not leak.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret([redacted])")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}
