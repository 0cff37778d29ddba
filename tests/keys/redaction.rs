use std::{collections::BTreeSet, fmt::Debug, path::Path};

use keyward::{
    Access, Account, Actor, Alphabet, ApiKeys, AuditEvent, AuditQuery, Checksum, Denied, Error,
    ErrorKind, Expiry, Formats, Hasher, HmacSha256Hasher, Key, KeyFormat, KeyId, Limits,
    MemoryStore, NewKey, Owner, OwnerScope, Pepper, PostgresStore, RedisStore, Secret,
    SecretDigest, Sha256Hasher, SqliteStore, Status, Timestamp, Verified, VerifyError,
    VerifyRequest,
    accounts::NoAccounts,
    api::{ApiKeysBuilder, Health, WeakApiKeys},
    audit::{EventKind, Fanout, Outcome, TracingSink},
    enroll::{CodeMessage, EmailAddress, EnrollError, Enrollment, EnrollmentBuilder},
    manage::{Issued, KeyChange, KeyPage, Page, Purged, Retention, Rotation},
    model::{
        EventId, Invalid, KeyLimits, Metadata, Name, Networks, OwnedScope, Period, Permissions,
        Quota, Rate, RetiringSecret, Revocation, Scope, Scopes,
    },
    secret::{
        Candidates, FormatError, GithubPattern, HasherTag, Hashers, ImportHashError,
        KeyFormatBuilder, Malformed, Parsed, PepperError, ScannerRules, Sha512Hasher,
    },
    store::{
        Capability, ChangeBatch, ChargeOutcome, CodeAttempt, CodeOutcome, Counter, CounterCharge,
        CounterKey, EventDocument, FeedMode, FoundKey, HourlyUsage, InsertKey, InsertOutcome,
        KeyDocument, KeyQuery, KeyUse, KvError, KvMode, KvOrder, KvStore, OneTimeCode,
        OwnedCounterCharge, OwnedInsertKey, OwnedRotateSecret, PostgresOptions, PreviousSecret,
        RedbEngine, RedisOptions, RevokeOutcome, RotateOutcome, RotateSecret, SqliteOptions,
        StoreError, StoreErrorKind, UpdateOutcome,
    },
    system::{ClockReading, EntropyError, SystemClock},
    testing::{Events, ManualClock, TestKeys},
    verify::{
        CacheOptions, DeniedReason, FeedState, IdentifiedKey, Limited, LimitedReason, QuotaState,
        QuotaStates, RateCharge, RateLevels, RateOutcome, RateState, RateStates, RateSubject,
        RedisOutage, RedisRateLimiter, Reservation, Settlement,
    },
};

use crate::support::{self, Service, stores};

#[tokio::test]
async fn no_debug_output_and_no_error_shows_a_secret() {
    let service = Service::new(stores::memory());
    let (keys, ada, by) = (service.keys(), &service.owner, &service.actor);
    let issued = service.issue().await;
    let text = issued.secret.expose();
    let digest = Sha256Hasher.digest(text.as_bytes());
    let request = VerifyRequest::new().user_agent("curl");
    let verified = keys.verify(text, &request).await.unwrap();
    let rotation = Rotation::immediate().token("my token");
    let rotated = keys.rotate(ada, issued.key.id, rotation.clone(), by).await.unwrap();
    let denied = keys.verify(text, &request).await.unwrap_err();
    let typo = text.replace("lc_live_", "lc_test_");
    let malformed = keys.verify(&typo, &request).await.unwrap_err();
    keys.flush().await.unwrap();
    let pepper = Pepper::new(1, b"pepperpepperpepperpepperpepperpepper".as_slice()).unwrap();
    let hashers = Hashers::new(Sha256Hasher).also_accept(Sha512Hasher);
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
    let hmac = HmacSha256Hasher::new(Pepper::new(2, vec![112; 40]).unwrap());
    let builder = ApiKeys::builder(MemoryStore::new(), keys.formats().clone())
        .hasher(HmacSha256Hasher::new(Pepper::new(3, vec![112; 40]).unwrap()));
    let key = issued.key.clone();
    let found = FoundKey { key, digest, ends_at: None };
    let row = InsertKey {
        key: &issued.key,
        digest: &digest,
        max_active: None,
        token_since: Timestamp::MIN,
        event: &events[0],
    };
    let more: Vec<&dyn Debug> = vec![&candidates, &parsed, &pepper, &hmac, &builder, &found, &row];
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
fn public_types_are_send_sync_and_debug() {
    use keyward::accounts::SensitiveChange;
    use keyward::email::{
        EmailContent, EmailSink, EmailSinkBuilder, Mailer, MailerBuilder, MailerStats, Notice,
    };
    use keyward::manage::{DuePage, Reminder, Reminders};
    use keyward::totp::{Totp, TotpError, TotpSecret, TotpSetup};
    use keyward::{accounts::Roles, audit::ExportFormat, manage::AuditExport};
    fn is_send_sync<T: Send + Sync + 'static>() {}
    fn is_debug<T: Debug>() {}
    macro_rules! all {
        ($($type:ty),* $(,)?) => {{
            $(is_send_sync::<$type>();
            is_debug::<$type>();)*
            [$(stringify!($type)),*]
        }};
    }
    let seen = all!(
        Access,
        Account,
        Actor,
        Alphabet,
        ApiKeys,
        ApiKeysBuilder,
        AuditEvent,
        AuditExport,
        AuditQuery<'static>,
        CacheOptions,
        Capability,
        Candidates,
        ChangeBatch,
        RateCharge<'static>,
        RateOutcome,
        Checksum,
        OneTimeCode,
        Settlement,
        Counter,
        Denied,
        DeniedReason,
        SecretDigest,
        DuePage,
        EmailAddress,
        EmailSink,
        EmailSinkBuilder,
        EnrollError,
        Enrollment,
        EnrollmentBuilder,
        EntropyError,
        Error,
        ErrorKind,
        EventDocument,
        EventId,
        EventKind,
        Events,
        Expiry,
        ExportFormat,
        Fanout,
        FeedMode,
        FeedState,
        ImportHashError,
        FormatError,
        Formats,
        FoundKey,
        GithubPattern,
        CodeAttempt,
        CodeOutcome,
        Hashers,
        Health,
        HmacSha256Hasher,
        IdentifiedKey,
        InsertOutcome,
        Invalid,
        Issued,
        KeyDocument,
        KvError,
        KvMode,
        KvOrder,
        KvStore,
        OwnedScope,
        OwnedCounterCharge,
        OwnedInsertKey,
        OwnedRotateSecret,
        RedbEngine,
        Key,
        KeyChange,
        KeyFormat,
        KeyFormatBuilder,
        KeyId,
        KeyLimits,
        KeyPage,
        KeyQuery<'static>,
        CodeMessage,
        MailerStats,
        RateLevels,
        Limited,
        LimitedReason,
        Limits,
        Mailer,
        MailerBuilder,
        Malformed,
        ManualClock,
        MemoryStore,
        Metadata,
        ClockReading,
        Name,
        Networks,
        NewKey,
        InsertKey<'static>,
        NoAccounts,
        Notice,
        Outcome,
        Owner,
        Page,
        Parsed<'static>,
        CounterKey<'static>,
        Pepper,
        PepperError,
        Period,
        Permissions,
        PostgresOptions,
        PostgresStore,
        PreviousSecret,
        Retention,
        Purged,
        Quota,
        QuotaState,
        QuotaStates,
        Rate,
        RateSubject,
        RateState,
        RateStates,
        RedisRateLimiter,
        RedisOptions,
        RedisStore,
        Reminder,
        Reminders,
        VerifyRequest<'static>,
        Reservation,
        RetiringSecret,
        Revocation,
        RevokeOutcome,
        Roles<&'static str>,
        RotateSecret<'static>,
        RotateOutcome,
        Rotation,
        ScannerRules,
        Scope,
        Scopes,
        Secret,
        SensitiveChange,
        TotpSetup,
        Sha256Hasher,
        Sha512Hasher,
        CounterCharge<'static>,
        ChargeOutcome,
        SqliteOptions,
        SqliteStore,
        Status,
        StoreError,
        StoreErrorKind,
        SystemClock,
        HasherTag,
        HourlyUsage,
        TestKeys,
        Timestamp,
        Totp,
        TotpError,
        TotpSecret,
        TracingSink,
        UpdateOutcome,
        KeyUse,
        Verified,
        VerifyError,
        WeakApiKeys,
        OwnerScope<'static>,
        RedisOutage,
        EmailContent,
    );
    let seen: BTreeSet<_> = seen.map(|name| name.split('<').next().unwrap().trim()).into();
    let sources = support::repository().join("src");
    let all = public_types(&sources);
    assert!(all.len() > 50);
    let unchecked = |name: &&String| !seen.contains(name.as_str());
    let unchecked: Vec<_> = all.iter().filter(unchecked).collect();
    assert!(unchecked.is_empty(), "not looked at: {unchecked:?}");
}

/// Returns the names of all public types in a folder of `src`.
fn public_types(folder: &Path) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let excluded = ["conformance", "client", "http", "tower", "axum", "actix", "manual"];
        if excluded.iter().any(|room| path.file_stem().is_some_and(|stem| stem == *room)) {
            // The conformance suite holds only secrets that it generates. The tests of the client and of
            // the web check their own types. The manual has an example and no types of the crate.
        } else if path.is_dir() {
            names.extend(public_types(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let kinds = ["pub struct ", "pub enum "];
            let after =
                |line: &str| kinds.iter().find_map(|k| Some(line.strip_prefix(k)?.to_owned()));
            let name = |line: String| {
                line.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap().to_owned()
            };
            names.extend(text.lines().filter_map(after).map(name));
        }
    }
    names
}

#[test]
fn futures_of_the_facade_are_send() {
    fn is_send<T: Send>(_: T) {}
    let keys = TestKeys::new().keys;
    let (owner, by) = (crate::support::owner("a", "b"), Actor::system("x"));
    let id: KeyId = "0190a5b2-0000-7000-8000-000000000000".parse().unwrap();
    is_send(keys.verify("x", &VerifyRequest::new()));
    is_send(keys.issue(NewKey::new(&owner, "x").unwrap(), &by));
    is_send(keys.rotate(&owner, id, Rotation::immediate(), &by));
    is_send(keys.update(&owner, id, &KeyChange::default(), &by));
    is_send(keys.revoke_all(&owner, "", &by));
    is_send(keys.purge(Retention::default(), |_| ()));
}
