use std::{
    pin::Pin,
    task::{Context, Poll},
};

use actix_web::{
    body::{BodySize, BoxBody, MessageBody},
    web::Bytes,
};

use crate::http::manage::{ManageBody, Polled};

/// A body of the management API, as actix-web sends it.
pub(super) fn body(body: ManageBody) -> BoxBody {
    match body.into_whole() {
        Ok(text) => BoxBody::new(text),
        Err(pieces) => BoxBody::new(Streamed(Polled::new(pieces))),
    }
}

struct Streamed(Polled);

impl MessageBody for Streamed {
    type Error = Box<dyn std::error::Error>;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        self.0.poll(cx).map_ok(Bytes::from).map_err(Into::into)
    }
}
