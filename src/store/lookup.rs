use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use super::{FoundKey, StoreError};

/// What a store found for a digest, at once or later. Whoever does not mind the wait awaits it.
///
/// A future of its own, and not that of an `async fn` behind `dyn`: a store that keeps its keys in
/// memory would pay more for the allocation than for the look-up.
#[must_use = "nothing is looked up before it is awaited"]
pub enum Lookup<'a> {
    /// It is known already.
    Ready(Result<Option<FoundKey>, StoreError>),
    /// Somebody has to be asked.
    Later(Pin<Box<dyn Future<Output = Result<Option<FoundKey>, StoreError>> + Send + 'a>>),
}

impl<'a> Lookup<'a> {
    /// Of a store that has to ask.
    pub fn later(
        search: impl Future<Output = Result<Option<FoundKey>, StoreError>> + Send + 'a,
    ) -> Self {
        Self::Later(Box::pin(search))
    }
}

impl Future for Lookup<'_> {
    type Output = Result<Option<FoundKey>, StoreError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Ready(found) => Poll::Ready(std::mem::replace(found, Ok(None))),
            Self::Later(search) => search.as_mut().poll(context),
        }
    }
}

impl fmt::Debug for Lookup<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready(found) => f.debug_tuple("Ready").field(found).finish(),
            Self::Later(_) => f.debug_tuple("Later").finish_non_exhaustive(),
        }
    }
}
