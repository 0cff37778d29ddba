use std::fmt::Debug;

use keyward::{
    Account, Actor, ApiKeys, AuditEvent, AuditQuery, Denied, Digest, Error, Expiry, Formats,
    Hasher, HmacSha256, Key, KeyFormat, KeyId, Limits, MemoryStore, NewKey, Owner, Pepper, Request,
    Secret, Sha256, Timestamp, Verified, VerifyError,
    accounts::NoAccounts,
    audit::{Fanout, TracingSink},
    format::{FormatError, KeyFormatBuilder, Malformed},
    hash::{Candidates, Hashers, Sha512},
    http::{
        ClientIp, Credentials, Guard, Refusal,
        manage::{Call, Caller, Manage},
    },
    keys::{
        ApiKeysBuilder, Issued, KeyChange, KeyPage, Page, Purge, Purged, Rotation, SystemClock,
    },
    store::{Changes, Found, StoreError},
    testing::{Events, ManualClock, TestKeys},
    tower::ApiKeyLayer,
};

use crate::support::{Service, stores};

#[tokio::test]
async fn no_debug_output_and_no_error_shows_a_secret() {
    let service = Service::new(stores::memory());
    let (keys, ada, by) = (service.keys(), &service.owner, &service.actor);
    let issued = service.issue().await;
    let text = issued.secret.expose();
    let digest = Sha256.digest(text.as_bytes());
    let request = Request::new().user_agent("curl");
    let verified = keys.verify(text, &request).await.unwrap();
    let rotation = Rotation::at_once().token("my token");
    let rotated = keys.rotate(ada, issued.key.id, rotation.clone(), by).await.unwrap();
    let denied = keys.verify(text, &request).await.unwrap_err();
    let typo = text.replace("lc_live_", "lc_test_");
    let malformed = keys.verify(&typo, &request).await.unwrap_err();
    keys.flush().await.unwrap();
    let pepper = Pepper::new(1, b"pepperpepperpepperpepperpepperpepper".as_slice()).unwrap();
    let hashers = Hashers::new(Sha256).also_accept(Sha512);
    let pages = keys.list(ada, Page::first()).await.unwrap();
    let events = keys.events(AuditQuery::new(ada)).await.unwrap();

    let shown: Vec<&dyn Debug> = vec![
        &issued,
        &rotated,
        &verified,
        &denied,
        &malformed,
        keys,
        &service.events,
        &pages,
        &events,
        &digest,
        &hashers,
        &rotation,
        &request,
        by,
    ];
    let candidates = hashers.candidates(text.as_bytes());
    let parsed = keys.formats().parse(text).unwrap();
    let hmac = HmacSha256::new(Pepper::new(2, vec![112; 40]).unwrap());
    let body = format!("token={text}");
    let call = Call::new(&http::Method::POST, "/introspect").body(b"", body.as_bytes());
    let (mut head, _) = http::Request::new(()).into_parts();
    head.headers.insert("x-api-key", text.parse().unwrap());
    let refusal = Guard::new(keys.clone()).check(&mut head, None).await.unwrap_err();
    let more: Vec<&dyn Debug> = vec![&candidates, &parsed, &pepper, &hmac, &call, &head, &refusal];
    let body = &text[text.len() - 20..];
    let hexes = [hex::encode(&digest.to_bytes()[3..]), hex::encode_upper(&digest.to_bytes()[3..])];
    for value in shown.iter().chain(&more) {
        for shown in [format!("{value:?}"), format!("{value:#?}")] {
            assert!(!shown.contains(body), "{shown}");
            assert!(!shown.contains(&rotated.secret.expose()[20..]), "{shown}");
            assert!(!shown.contains("pepperpepper") && !shown.contains("112, 112"), "{shown}");
            assert!(!shown.contains("my token"), "{shown}");
            assert!(!hexes.iter().any(|hex| shown.contains(hex)), "{shown}");
        }
    }
    for error in [&denied, &malformed] {
        assert!(!error.to_string().contains(body));
    }
}

#[test]
fn public_types_can_cross_threads() {
    fn crosses<T: Send + Sync + 'static>() {}
    macro_rules! all {
        ($($type:ty),* $(,)?) => { $(crosses::<$type>();)* };
    }
    all!(
        Account,
        Actor,
        ApiKeyLayer,
        ApiKeys,
        ApiKeysBuilder,
        AuditEvent,
        AuditQuery<'static>,
        Call<'static>,
        Caller,
        Candidates,
        Changes,
        ClientIp,
        Credentials,
        Denied,
        Digest,
        Error,
        Events,
        Expiry,
        Fanout,
        FormatError,
        Formats,
        Found,
        Guard,
        Hashers,
        HmacSha256,
        Issued,
        Key,
        KeyChange,
        KeyFormat,
        KeyFormatBuilder,
        KeyId,
        KeyPage,
        Limits,
        Malformed,
        Manage,
        ManualClock,
        MemoryStore,
        NewKey,
        NoAccounts,
        Owner,
        Page,
        Pepper,
        Purge,
        Purged,
        Refusal,
        Request<'static>,
        Rotation,
        Secret,
        StoreError,
        SystemClock,
        TestKeys,
        Timestamp,
        TracingSink,
        Verified,
        VerifyError,
    );
}

#[test]
fn a_verification_can_be_awaited_anywhere() {
    fn sends<T: Send>(_: T) {}
    let keys = TestKeys::new().keys;
    let (owner, by) = (crate::support::owner("a", "b"), Actor::system("x"));
    let id: KeyId = "0190a5b2-0000-7000-8000-000000000000".parse().unwrap();
    sends(keys.verify("x", &Request::new()));
    sends(keys.issue(NewKey::new(&owner, "x").unwrap(), &by));
    sends(keys.rotate(&owner, id, Rotation::at_once(), &by));
    sends(keys.update(&owner, id, &KeyChange::default(), &by));
    sends(keys.revoke_all(&owner, "", &by));
    sends(keys.purge(Purge::default(), |_| ()));
}
