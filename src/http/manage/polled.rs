use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use super::ManageBody;
use crate::error::Error;

/// A body as servers ask for it. Each piece is read when it is asked for, and no earlier.
pub(crate) struct Polled(Option<Reading>);

type Reading = Pin<Box<dyn Future<Output = (ManageBody, Result<Option<String>, Error>)> + Send>>;

impl Polled {
    pub(crate) fn new(body: ManageBody) -> Self {
        Self(Some(read(body)))
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<String, Error>>> {
        let Some(reading) = &mut self.0 else { return Poll::Ready(None) };
        let (body, piece) = ready!(reading.as_mut().poll(cx));
        self.0 = matches!(piece, Ok(Some(_))).then(|| read(body));
        Poll::Ready(piece.transpose())
    }
}

fn read(mut body: ManageBody) -> Reading {
    Box::pin(async move {
        let piece = body.next_chunk().await;
        (body, piece)
    })
}
