//! Keys and events as documents: what any version wrote is read back, and what is incomplete is an error.

use keyward::{
    Access, AuditEvent, Key, KeyId, Owner, Timestamp,
    audit::{EventKind, Outcome},
    model::{
        KeyLimits, Metadata, Name, Networks, Period, Quota, Rate, RetiringSecret, Revocation,
        Status,
    },
    store::{EventDocument, KeyDocument, StoreError, StoreErrorKind},
};
use serde_json::{Value, json};

/// Written by version 1. It never changes: a later version must still read it.
const KEY_V1: &str = include_str!("documents/key-v1.json");
const EVENT_V1: &str = include_str!("documents/event-v1.json");

fn at(second: i64) -> Timestamp {
    Timestamp::from_unix_micros(1_770_638_400_000_000 + second * 1_000_000)
}

/// A key in which no field has its default.
fn full_key() -> Key {
    Key {
        id: "0198c3a0-0000-7000-8000-000000000001".parse().unwrap(),
        owner: Owner::new("acme", "ada/東京").unwrap(),
        name: Name::new("ci").unwrap(),
        hint: "lc_live_a1b2".into(),
        retiring: Some(RetiringSecret { hint: "lc_live_old".into(), ends_at: Timestamp::MIN }),
        access: Access::only(["builds:read", "deploy"]).unwrap(),
        limits: KeyLimits {
            rate: Some(Rate::per_minute(60).burst(5)),
            quota: Some(Quota::per_month(50_000)),
        },
        networks: Networks::only(["192.0.2.0/24", "2001:db8::1"]).unwrap(),
        metadata: Metadata::new([("team", "core"), ("note", "")]).unwrap(),
        created_at: at(0),
        expires_at: Some(at(100)),
        disabled_at: Some(at(2)),
        revoked: Some(Revocation { at: at(3), reason: String::new() }),
        rotated_at: Some(at(4)),
        rotation_token: Some([7; 32]),
        issue_token: Some([8; 32]),
        first_used_at: Some(at(5)),
        secret_first_used_at: Some(at(6)),
        last_used_at: Some(at(7)),
        last_used_ip: Some("2001:db8::7".parse().unwrap()),
        revision: u64::MAX >> 1,
    }
}

fn full_event() -> AuditEvent {
    let (key, id) = (full_key(), "0198c3a0-0000-7000-8000-000000000002".parse().unwrap());
    let mut event = AuditEvent::new(id, at(9), EventKind::Revoked);
    event.outcome = Outcome::Failure;
    event.tenant = key.owner.tenant().into();
    event.account = Some(key.owner.account().into());
    event.key_id = Some(key.id);
    event.actor = "ada".into();
    event.ip = Some("192.0.2.7".parse().unwrap());
    event.user_agent = Some("curl/8.5".into());
    event.reason = Some("leaked\n\"".into());
    event.count = u32::MAX;
    event
}

fn read_key(document: &Value) -> Result<Key, StoreError> {
    let document: KeyDocument =
        serde_json::from_value(document.clone()).map_err(StoreError::corrupt)?;
    document.try_into()
}

fn read_event(document: &Value) -> Result<AuditEvent, StoreError> {
    let document: EventDocument =
        serde_json::from_value(document.clone()).map_err(StoreError::corrupt)?;
    document.try_into()
}

#[test]
fn every_field_of_a_key_and_an_event_survives_a_document() {
    let plain = Key {
        retiring: None,
        access: Access::Inherited,
        limits: KeyLimits::default(),
        networks: Networks::Any,
        metadata: Metadata::default(),
        expires_at: None,
        disabled_at: None,
        revoked: None,
        rotated_at: None,
        rotation_token: None,
        issue_token: None,
        first_used_at: None,
        secret_first_used_at: None,
        last_used_at: None,
        last_used_ip: None,
        ..full_key()
    };
    let nothing = Access::only::<&str>([]).unwrap();
    let nowhere = Networks::only::<&str>([]).unwrap();
    let empty = Key { access: nothing, networks: nowhere, ..plain.clone() };
    for key in [full_key(), plain, empty] {
        let document = serde_json::to_value(KeyDocument::from(&key)).unwrap();
        assert_eq!(read_key(&document).unwrap(), key);
    }
    let bare = AuditEvent::new(full_event().id, at(9), EventKind::Denied);
    for event in [full_event(), bare] {
        let document = serde_json::to_value(EventDocument::from(&event)).unwrap();
        assert_eq!(read_event(&document).unwrap(), event);
    }
}

#[test]
fn documents_of_version_1_are_read_and_written_as_they_were() {
    let (key, event): (Value, Value) =
        (serde_json::from_str(KEY_V1).unwrap(), serde_json::from_str(EVENT_V1).unwrap());
    assert_eq!(read_key(&key).unwrap(), full_key());
    assert_eq!(read_event(&event).unwrap(), full_event());
    assert_eq!(serde_json::to_value(KeyDocument::from(&full_key())).unwrap(), key);
    assert_eq!(serde_json::to_value(EventDocument::from(&full_event())).unwrap(), event);
    assert_eq!(serde_json::to_value(full_event()).unwrap(), event);
    assert_eq!(serde_json::from_value::<AuditEvent>(event).unwrap(), full_event());
}

#[test]
fn a_document_that_is_incomplete_unknown_or_of_a_later_version_is_corrupt() {
    fn spoiled(document: &Value) -> Vec<(String, Value)> {
        let fields = document.as_object().unwrap();
        let mut all = Vec::new();
        for field in fields.keys() {
            let mut lacking = fields.clone();
            lacking.remove(field);
            all.push((format!("without {field}"), lacking.into()));
            let mut changed = fields.clone();
            changed.insert(field.clone(), json!({"unknown": true}));
            all.push((format!("with another {field}"), changed.into()));
        }
        for (field, value) in [("unknown", json!(1)), ("version", json!(2)), ("version", json!(0))]
        {
            let mut changed = fields.clone();
            changed.insert(field.into(), value);
            all.push((format!("with {field}"), changed.into()));
        }
        all
    }
    let key = serde_json::to_value(KeyDocument::from(&full_key())).unwrap();
    let mut cases = spoiled(&key);
    for (field, value) in [
        ("created_at", json!(i64::MAX)),
        ("quota", json!({"uses": 1, "period": "week"})),
        ("rotation_token", json!("07")),
        ("revoked", json!({"at": 1})),
        ("retiring", json!({"hint": "a"})),
        ("scopes", json!([""])),
        ("networks", json!(["all"])),
        ("account", json!("")),
    ] {
        let mut changed = key.clone();
        changed[field] = value;
        cases.push((format!("with a damaged {field}"), changed));
    }
    for (what, document) in cases {
        let error = read_key(&document).expect_err(&what);
        assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{what}");
    }
    for (what, document) in
        spoiled(&serde_json::to_value(EventDocument::from(&full_event())).unwrap())
    {
        let error = read_event(&document).expect_err(&what);
        assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{what}");
    }
}

#[test]
fn every_word_that_is_stored_can_be_parsed() {
    for period in Period::ALL {
        assert_eq!(period.as_str().parse(), Ok(period));
    }
    for outcome in Outcome::ALL {
        assert_eq!(outcome.as_str().parse(), Ok(outcome));
    }
    for status in Status::ALL {
        assert_eq!(status.as_str().parse(), Ok(status));
    }
    for kind in EventKind::ALL {
        assert_eq!(kind.as_str().parse(), Ok(kind));
    }
    let error = "week".parse::<Period>().unwrap_err().to_string();
    assert!(error.ends_with("use one of `ever` `day` `month`"), "{error}");
    assert!("nothing".parse::<KeyId>().is_err());
}
