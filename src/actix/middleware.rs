use std::{
    future::{Ready, ready},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use actix_web::{
    Error, HttpMessage,
    body::{EitherBody, MessageBody},
    dev::{Service, ServiceRequest, ServiceResponse, Transform},
    http::header::{HeaderMap, HeaderName},
};

use super::respond::{add_success_fields, respond};
use crate::http::{
    Guard, RequestHead,
    guard::{Checked, Earlier, Looked},
    incoming::Fields,
};

/// Puts a [`Guard`] in front of an app, a scope or a resource.
///
/// One within another, of the same [`ApiKeys`](crate::api::ApiKeys), verifies nothing again but asks for
/// its own scopes, so that nothing counts twice. Whatever logs header fields should stand inside
/// it: only from here on the field with the secret is marked as sensitive.
#[derive(Clone, Debug)]
#[must_use]
pub struct ApiKeyAuth {
    guard: Arc<Guard>,
}

/// A service behind a [`Guard`]; made by [`ApiKeyAuth`].
#[derive(Debug)]
pub struct ApiKeyAuthService<S> {
    inner: Rc<S>,
    guard: Arc<Guard>,
}

impl ApiKeyAuth {
    /// A middleware that does what the guard says.
    pub fn new(guard: Guard) -> Self {
        Self { guard: Arc::new(guard) }
    }
}

impl<S, B> Transform<S, ServiceRequest> for ApiKeyAuth
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error> + 'static,
    B: MessageBody,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = Error;
    type Transform = ApiKeyAuthService<S>;
    type InitError = ();
    type Future = Ready<Result<Self::Transform, ()>>;

    fn new_transform(&self, service: S) -> Self::Future {
        let (inner, guard) = (Rc::new(service), self.guard.clone());
        ready(Ok(ApiKeyAuthService { inner, guard }))
    }
}

impl<S, B> Service<ServiceRequest> for ApiKeyAuthService<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error> + 'static,
    B: MessageBody,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Error>>>>;

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&self, mut request: ServiceRequest) -> Self::Future {
        let (guard, inner) = (self.guard.clone(), self.inner.clone());
        request.headers_mut().retain(|name, value| {
            if guard.sensitive().any(|sensitive| sensitive.as_str() == name.as_str()) {
                value.set_sensitive(true);
            }
            true
        });
        let checked = look(&guard, &request);
        Box::pin(async move {
            let refusal = match checked {
                Checked::Refused(refusal) => refusal,
                Checked::Known => return Ok(inner.call(request).await?.map_into_left_body()),
                Checked::Nobody => {
                    request.extensions_mut().insert(Looked);
                    return Ok(inner.call(request).await?.map_into_left_body());
                }
                Checked::Presents(pending) => match guard.verify(pending).await {
                    Err(refusal) => refusal,
                    Ok(verified) => {
                        request.extensions_mut().insert(guard.mark(&verified));
                        request.extensions_mut().insert(verified.clone());
                        let mut response = inner.call(request).await?.map_into_left_body();
                        add_success_fields(response.headers_mut(), &verified);
                        return Ok(response);
                    }
                },
            };
            Ok(request.into_response(respond(&refusal)).map_into_right_body())
        })
    }
}

fn look(guard: &Guard, request: &ServiceRequest) -> Checked {
    let query = Some(request.query_string()).filter(|query| !query.is_empty());
    let peer = request.peer_addr().map(|peer| peer.ip());
    let incoming = RequestHead::new(request.headers(), request.path(), query, peer);
    guard.look(&incoming, request.extensions().get::<Earlier>())
}

impl Fields for HeaderMap {
    fn each<'a>(&'a self, name: &http::HeaderName, show: &mut dyn FnMut(&'a [u8])) {
        // Names are lower case in both.
        if let Ok(name) = HeaderName::from_lowercase(name.as_str().as_bytes()) {
            self.get_all(name).for_each(|value| show(value.as_bytes()));
        }
    }
}
