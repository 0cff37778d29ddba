use crate::{error::Error, manage::AuditExport};

/// The body of an answer: whole, or in pieces that are read from the store as they are asked for.
///
/// # Examples
/// ```
/// # use keyward::{Error, http::manage::ManageBody};
/// /// For a framework that takes nothing but whole bodies.
/// async fn whole(mut body: ManageBody) -> Result<String, Error> {
///     let mut text = String::new();
///     while let Some(piece) = body.next_chunk().await? {
///         text += &piece;
///     }
///     Ok(text)
/// }
/// ```
#[must_use]
pub struct ManageBody {
    ready: Option<String>,
    rest: Option<Box<AuditExport>>,
}

impl ManageBody {
    /// Reads the first page, so that a store that fails is answered as such.
    pub(super) async fn export(mut export: AuditExport) -> Result<Self, Error> {
        let ready = export.next_page().await?;
        let rest = Some(Box::new(export)).filter(|export| !export.is_over());
        Ok(Self { ready, rest })
    }

    /// The next piece; `None` behind the last.
    ///
    /// # Errors
    /// Those of a store that fails. What was sent is not all then, and the connection MUST end so
    /// that its reader knows.
    pub async fn next_chunk(&mut self) -> Result<Option<String>, Error> {
        match (self.ready.take(), &mut self.rest) {
            (Some(piece), _) => Ok(Some(piece)),
            (None, Some(export)) => export.next_page().await,
            (None, None) => Ok(None),
        }
    }

    /// All of it, if it is there.
    #[cfg(any(feature = "axum", feature = "actix"))]
    pub(crate) fn into_whole(self) -> Result<String, Self> {
        if self.rest.is_some() { Err(self) } else { Ok(self.ready.unwrap_or_default()) }
    }
}

impl From<String> for ManageBody {
    fn from(text: String) -> Self {
        Self { ready: Some(text), rest: None }
    }
}

/// It may carry a secret.
impl std::fmt::Debug for ManageBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ManageBody").finish_non_exhaustive()
    }
}
