//! Plain data by itself: owners, scopes, periods, rates, expiries and texts.

use std::{num::NonZeroU32, time::Duration};

use keyward::{
    AuditEvent, Expiry, KeyId, Owner, OwnerScope, Status, Timestamp,
    audit::{EventKind, Outcome},
    model::{EventId, KeyLimits, Metadata, Name, Period, Rate, Scopes},
};
use proptest::prelude::*;

use crate::support::DAY;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

#[test]
fn days_and_months_are_in_utc() {
    let leap = at("2028-02-29T23:59:59.999Z");
    assert_eq!(Period::Day.begins_at(leap), at("2028-02-29T00:00:00Z"));
    assert_eq!(Period::Day.ends_at(leap), Some(at("2028-03-01T00:00:00Z")));
    assert_eq!(Period::Month.begins_at(leap), at("2028-02-01T00:00:00Z"));
    assert_eq!(Period::Month.ends_at(leap), Some(at("2028-03-01T00:00:00Z")));
    let eve = at("2026-12-31T12:00:00Z");
    assert_eq!(Period::Month.ends_at(eve), Some(at("2027-01-01T00:00:00Z")));
    assert_eq!(Period::Ever.begins_at(eve), Timestamp::MIN);
    assert_eq!(Period::Ever.ends_at(eve), None);
    let last = Timestamp::MAX;
    assert_eq!(Period::Month.begins_at(last), at("9999-12-01T00:00:00Z"));
    assert_eq!([Period::Day, Period::Month].map(|period| period.ends_at(last)), [Some(last); 2]);
}

proptest! {
    #[test]
    fn periods_contain_their_instants_and_follow_each_other_without_gaps(
        micros in 0..=Timestamp::MAX.as_unix_micros(), month: bool,
    ) {
        let period = if month { Period::Month } else { Period::Day };
        let now = Timestamp::from_unix_micros(micros);
        let (begin, end) = (period.begins_at(now), period.ends_at(now).unwrap());
        prop_assert!(begin <= now && (now < end || end == Timestamp::MAX));
        prop_assert_eq!(period.begins_at(begin), begin);
        if end < Timestamp::MAX {
            prop_assert_eq!(period.begins_at(end), end);
            let last = Timestamp::from_unix_micros(end.as_unix_micros() - 1);
            prop_assert_eq!(period.begins_at(last), begin);
        }
    }
}

#[test]
fn a_month_begins_on_its_first_day_and_ends_with_the_next() {
    for year in 1970..9999 {
        for month in 1..=12 {
            let first = at(&format!("{year}-{month:02}-01T00:00:00Z"));
            let (year, month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
            let next = at(&format!("{year}-{month:02}-01T00:00:00Z"));
            for now in [first, first.after(DAY * 20), next.before(Duration::from_micros(1))] {
                assert_eq!(Period::Month.begins_at(now), first);
                assert_eq!(Period::Month.ends_at(now), Some(next));
            }
        }
    }
}

#[test]
fn a_rate_period_of_more_than_a_year_is_compared_as_one_year() {
    let per = |years: u32, uses| {
        let uses = NonZeroU32::new(uses).unwrap();
        let rate = Rate { uses, period: years * 365 * DAY, burst: uses };
        KeyLimits { rate: Some(rate), quota: None }
    };
    assert!(per(1, 1_000).covers(&per(1_000, 1_000)));
    assert!(per(1_000, 1_000).covers(&per(1, 1_000)));
    assert!(
        !per(1, 999).covers(&per(1_000, 1_000)),
        "1000 uses in 1000 years count as 1000 uses in one year"
    );
}

#[test]
fn expiry_presets_have_the_documented_length() {
    let noon = Timestamp::from_unix_micros(1_000_000_000);
    for (preset, days) in
        [(Expiry::WEEK, 7), (Expiry::DAYS_30, 30), (Expiry::DAYS_90, 90), (Expiry::YEAR, 365)]
    {
        assert_eq!(preset, Expiry::days(days));
        assert_eq!(preset.resolve(noon), Some(noon.after(days * DAY)));
    }
}

#[test]
fn a_name_is_displayed_escaped_and_returned_unchanged() {
    let name = Name::new("ci\n\u{1b}[2J\u{202e}\u{200b}root").unwrap();
    assert_eq!(name.to_string(), r"ci\u{a}\u{1b}[2J\u{202e}\u{200b}root");
    assert_eq!(name.as_str(), "ci\n\u{1b}[2J\u{202e}\u{200b}root");
    let invisible = "\u{ad}\u{34f}\u{115f}\u{17b4}\u{180f}\u{2065}\u{3164}\u{ffa0}\u{fff8}\u{1bca0}\u{1d17a}\u{e01ef}";
    for character in invisible.chars() {
        let name = Name::new(&format!("a{character}b")).unwrap();
        assert!(name.to_string().is_ascii(), "{name}");
    }
    let emoji = Name::new("\u{2764}\u{fe0f}").unwrap();
    assert_eq!(emoji.to_string(), emoji.as_str(), "a variation selector of an emoji");
}

#[test]
fn an_owner_is_an_account_of_a_tenant_and_only_its_scopes_include_it() {
    let ada = Owner::new("acme", "ada").unwrap();
    assert_eq!((ada.tenant(), ada.account()), ("acme", "ada"));
    let alone = Owner::account_only("u_1").unwrap();
    assert_eq!((alone.tenant(), alone.account()), ("", "u_1"));
    let own: OwnerScope = (&ada).into();
    assert!(own.includes(&ada) && OwnerScope::Tenant("acme").includes(&ada));
    assert!(!own.includes(&alone) && !OwnerScope::Tenant("other").includes(&ada));
}

#[test]
fn scopes_are_sorted_and_without_duplicates() {
    let scopes = Scopes::new(["builds:write", "builds:read", "builds:write"]).unwrap();
    assert!(scopes.contains("builds:read") && !scopes.contains("builds"));
    assert_eq!(scopes.to_string(), "builds:read builds:write");
    assert_eq!(Scopes::default(), Scopes::new([""; 0]).unwrap());
}

#[test]
fn metadata_is_read_by_key() {
    let metadata = Metadata::new([("team", "billing"), ("team", "ops")]).unwrap();
    assert_eq!((metadata.get("team"), metadata.get("name")), (Some("ops"), None));
}

#[test]
fn instants_convert_to_and_from_the_crate_time() {
    let noon = at("2026-02-09T12:00:00.123456Z");
    let time = time::OffsetDateTime::from(noon);
    assert_eq!(time.unix_timestamp_nanos(), i128::from(noon.as_unix_micros()) * 1_000);
    for instant in [Timestamp::MIN, noon, Timestamp::MAX] {
        assert_eq!(Timestamp::from(time::OffsetDateTime::from(instant)), instant);
    }
    let offset = time.to_offset(time::UtcOffset::from_hms(5, 30, 0).unwrap());
    assert_eq!(Timestamp::from(offset), noon, "the offset does not matter");
    let early = time::OffsetDateTime::UNIX_EPOCH - Duration::from_nanos(1);
    assert_eq!(Timestamp::from(early), Timestamp::MIN, "clamped");
}

#[test]
fn ids_instants_and_names_are_serialized_as_their_texts_without_loss() {
    fn is<T>(value: T, json: &str)
    where
        T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
    {
        assert_eq!(serde_json::to_string(&value).unwrap(), json);
        assert_eq!(serde_json::from_str::<T>(json).unwrap(), value);
        assert!(serde_json::from_str::<T>("\"no such text\"").is_err());
        assert!(serde_json::from_str::<T>("7").is_err());
    }
    let id = "0198c3a0-0000-7000-8000-000000000001";
    is(id.parse::<KeyId>().unwrap(), &format!("\"{id}\""));
    is(id.parse::<EventId>().unwrap(), &format!("\"{id}\""));
    is(Status::Revoked, "\"revoked\"");
    is(EventKind::Created, "\"key.created\"");
    is(Outcome::Failure, "\"failure\"");
    is(at("2026-02-09T12:00:00Z"), "\"2026-02-09T12:00:00.000Z\"");
    is(at("2026-02-09T12:00:00.123456Z"), "\"2026-02-09T12:00:00.123456Z\"");
    is(at("2026-02-09T12:00:00.000001Z"), "\"2026-02-09T12:00:00.000001Z\"");
    is(Timestamp::MAX, "\"9999-12-31T23:59:59.999999Z\"");
}

/// The documentation of `Owner` says so.
#[test]
fn an_owner_is_kept_exactly_whatever_characters_but_nul_it_has() {
    for text in ["a\nb", "\u{1b}[2J", "\u{202e}x", " ", "\t", "a\u{7f}", "é", "e\u{301}"] {
        let owner = Owner::new(text, text).unwrap();
        assert_eq!((owner.tenant(), owner.account()), (text, text));
        let mut event =
            AuditEvent::new(EventId::from_bytes([1; 16]), Timestamp::MIN, EventKind::Created);
        (event.tenant, event.account) = (text.into(), Some(text.into()));
        assert!(
            !event.to_string().contains(['\n', '\t', '\u{1b}', '\u{202e}', '\u{7f}']),
            "{event}"
        );
    }
    assert_ne!(Owner::new("é", "x").unwrap(), Owner::new("e\u{301}", "x").unwrap());
    for text in ["\0", "a\0b", ""] {
        assert!(Owner::new(text, "a").is_err() && Owner::new("a", text).is_err(), "{text:?}");
    }
}
