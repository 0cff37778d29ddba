//! The Redis store: faults, replicas, lost data, server settings and damage, on running servers.

mod damage;
mod faults;
mod feed;
mod lost;
mod names;
mod replicas;
mod scripts;
mod server;

use std::{sync::Arc, time::Duration};

use keyward::{
    Error, ErrorKind, KeyStore, RedisStore, Verified, VerifyError, VerifyRequest, manage::Issued,
    store::RedisOptions, verify::DeniedReason,
};

use crate::support::{
    Service,
    servers::{
        Address, Proxy, eventually,
        redis::{self, Options, Server},
    },
};

async fn connect(address: &Address) -> RedisStore {
    options().connect(&redis::url(address)).await.unwrap()
}

/// With a timeout that is long enough for a busy machine.
fn options() -> RedisOptions {
    RedisOptions::new().timeout(Duration::from_secs(60))
}

/// With a timeout that is short enough to wait for.
fn impatient() -> RedisOptions {
    RedisOptions::new().timeout(Duration::from_secs(2))
}

/// A service on a server of its own.
async fn service_on(address: &Address) -> Service {
    service(connect(address).await)
}

fn service(store: RedisStore) -> Service {
    Service::uncached(vec![Arc::new(store) as Arc<dyn KeyStore>])
}

/// A durable server behind a proxy.
fn behind_a_proxy() -> Option<(Server, Proxy)> {
    let server = Options::default().durable().start()?;
    let proxy = server.proxy();
    Some((server, proxy))
}

async fn revoke(service: &Service, issued: &Issued, reason: &str) -> Result<(), Error> {
    service.keys().revoke(&service.owner, issued.key.id, reason, &service.actor).await
}

/// Verifies a key; the store may be down.
async fn verify(service: &Service, issued: &Issued) -> Result<Verified, Verdict> {
    let verified = service.keys().verify(issued.secret.expose(), &VerifyRequest::new()).await;
    verified.map_err(|error| match error {
        VerifyError::Denied(denied) => Verdict::Denied(denied.reason()),
        VerifyError::Unavailable(error) => Verdict::Failed(error.kind()),
        VerifyError::Limited(limited) => panic!("{limited}"),
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Denied(DeniedReason),
    Failed(ErrorKind),
}

const REVOKED: Verdict = Verdict::Denied(DeniedReason::Revoked);
const UNAVAILABLE: Verdict = Verdict::Failed(ErrorKind::Unavailable);

/// Waits until a key can be verified again.
async fn until_verified(service: &Service, issued: &Issued) {
    eventually("the store recovers by itself", async || verify(service, issued).await.is_ok())
        .await;
}
