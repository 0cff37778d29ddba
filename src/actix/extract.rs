use std::future::{Ready, ready};

use actix_web::{FromRequest, HttpMessage, HttpRequest, dev::Payload};

use crate::{
    http::{ErrorCode, Rejection, guard::Looked},
    verify::Verified,
};

/// The key that the middleware has verified. Without the middleware the answer is 500 and names the
/// fix; with an optional one, use [`MaybeVerified`].
impl FromRequest for Verified {
    type Error = Rejection;
    type Future = Ready<Result<Self, Rejection>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let verified = request.extensions().get::<Self>().cloned();
        ready(verified.ok_or_else(|| Rejection::new(ErrorCode::MissingLayer)))
    }
}

/// The key, if an optional middleware found one: what `Option<Verified>` is not, which actix-web
/// makes of every error, also of a middleware that was forgotten.
#[derive(Clone, Debug)]
pub struct MaybeVerified(
    /// The key, or nobody.
    pub Option<Verified>,
);

impl FromRequest for MaybeVerified {
    type Error = Rejection;
    type Future = Ready<Result<Self, Rejection>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let extensions = request.extensions();
        let verified = extensions.get::<Verified>().cloned();
        let looked = verified.is_some() || extensions.get::<Looked>().is_some();
        ready(if looked { Ok(Self(verified)) } else { Err(Rejection::new(ErrorCode::MissingLayer)) })
    }
}
