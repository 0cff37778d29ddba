use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::{Body, Bytes};
use http_body::Frame;

use crate::{
    error::Error,
    http::manage::{self, Polled},
};

/// A body of the management API, as axum sends it.
pub(super) fn body(body: manage::ManageBody) -> Body {
    match body.into_whole() {
        Ok(text) => Body::from(text),
        Err(pieces) => Body::new(Streamed(Polled::new(pieces))),
    }
}

struct Streamed(Polled);

impl http_body::Body for Streamed {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.0.poll(cx).map_ok(|piece| Frame::data(piece.into()))
    }
}
