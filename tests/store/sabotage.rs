//! Stores that each violate one rule of the contract, and the conformance checks that must fail.

mod atomicity;
mod audit_log;
mod change_feed;
mod clock;
mod counters;
mod key_changes;
mod key_reads;
mod key_removal;
mod one_time_codes;
mod reopening;
mod scope;
mod sizes;
mod usage_history;
pub mod wrapper;

use std::{collections::BTreeSet, pin::Pin, sync::Arc, time::Duration};

use keyward::{
    KeyStore,
    store::conformance::{self, Report, Suite},
};

use self::wrapper::{NoSabotage, Sabotage, Sabotaged};

/// A sabotaged store and the checks that must fail on it.
struct Case {
    name: &'static str,
    report: fn(Suite) -> Pin<Box<dyn Future<Output = Report>>>,
    checks: &'static [&'static str],
}

macro_rules! cases {
    ($($sabotage:path => $($check:ident)+;)*) => {
        [$(Case {
            name: stringify!($sabotage),
            report: |suite| Box::pin(report::<$sabotage>(suite)),
            checks: &[$(stringify!($check)),+],
        }),*]
    };
}

fn cases() -> impl Iterator<Item = Case> {
    let cases = cases! {
        key_changes::IgnoresTheLimit => insert_is_refused_at_the_limit;
        key_changes::DisabledKeysDoNotCount =>
            expired_and_revoked_keys_free_a_slot_and_disabled_ones_do_not;
        key_changes::CountsThenInserts => racing_inserts_never_exceed_the_limit;
        key_changes::Upserts =>
            an_insert_overwrites_nothing
            racing_inserts_of_one_secret_make_one_key;

        key_reads::FindsOnlyTheFirstCandidate => find_returns_the_key_of_any_candidate_digest;
        key_reads::IgnoresTheTag => digests_are_compared_whole_including_the_hasher_tag;
        key_reads::ComparesOnlyAPrefix => digests_are_compared_whole_including_the_hasher_tag;
        key_reads::ReportsTheFirstDigest => find_reports_the_digest_that_matched;
        key_reads::JoinsTheNamesOfOwners => owners_are_told_apart_whatever_separates_their_names;
        key_reads::ReadsStaleData => find_returns_the_latest_committed_key;
        key_reads::ConfusesNoScopesWithInherited => every_field_of_a_key_round_trips;
        key_reads::TruncatesReasons => every_field_set_by_a_write_round_trips;
        key_reads::ListsOldestFirst => keys_are_listed_newest_first_up_to_the_limit;
        key_reads::ExpiresTooLate => a_status_filter_agrees_with_key_status;
        key_reads::PagesByOffset =>
            pages_list_each_key_once_while_keys_are_added
            pages_list_each_event_once_while_events_are_added;

        key_reads::SkipsTheEmptyTenant => each_tenant_that_has_keys_is_listed_once;
        key_reads::ListsTenantsOncePerKey => each_tenant_that_has_keys_is_listed_once;
        key_reads::KeepsTenantsWithoutKeys => each_tenant_that_has_keys_is_listed_once;
        key_reads::SkipsTenantsWithOnlyRevokedKeys => each_tenant_that_has_keys_is_listed_once;
        key_reads::PagesTenantsByOffset => pages_list_each_tenant_once_while_others_appear_and_disappear;
        key_reads::StopsAfterARemovedTenant => pages_list_each_tenant_once_while_others_appear_and_disappear;

        scope::IgnoresCase => owners_are_compared_exactly;
        scope::RejectsTenantScopes => an_administrator_reaches_every_key_of_the_tenant;
        scope::Unscoped =>
            another_owners_key_cannot_be_read
            another_owners_key_cannot_be_listed
            another_owners_key_cannot_be_updated
            another_owners_key_cannot_be_rotated
            another_owners_key_cannot_be_revoked
            another_owners_keys_are_not_revoked_by_revoke_all
            another_owners_key_cannot_be_deleted
            another_owners_key_records_no_uses
            another_owners_events_cannot_be_read;

        key_changes::IgnoresTokens =>
            a_token_issues_one_key_of_an_owner
            racing_inserts_with_one_token_make_one_key;
        key_changes::ChecksTheTokenThenInserts => racing_inserts_with_one_token_make_one_key;
        key_changes::UpdatesTheHint => an_update_writes_its_fields_and_nothing_else;
        key_changes::UpdatesAnyRevision =>
            an_update_applies_only_to_the_revision_it_was_based_on
            racing_updates_of_one_revision_have_one_winner;
        key_changes::UpdatesReviveRevokedKeys =>
            an_update_does_not_change_a_revoked_key
            a_revocation_racing_other_writes_wins;
        key_changes::RotationsMoveTheExpiry =>
            a_rotation_retires_the_current_secret_and_changes_nothing_else;
        key_changes::KeepsTheToken => a_rotation_sets_and_removes_the_token;
        key_changes::KeepsEverySecret =>
            a_second_rotation_removes_the_retiring_secret
            a_replaced_secret_is_removed_and_the_retiring_one_stays;
        key_changes::RemovesTheWrongSecret => a_replaced_secret_is_removed_and_the_retiring_one_stays;
        key_changes::ReplacesUsedSecrets => a_used_secret_is_not_replaced;
        key_changes::ChecksTheUseThenRotates => a_replacement_racing_a_use_of_the_secret_sees_it;
        key_changes::RotationsOverwriteOtherKeys => a_rotation_to_an_existing_digest_changes_nothing;
        key_changes::RotatesAnyRevision =>
            a_rotation_applies_only_to_the_revision_it_was_based_on
            racing_rotations_of_one_revision_have_one_winner;
        key_removal::LaterRevocationsOverwrite => a_second_revocation_keeps_the_first_instant_and_reason;
        key_removal::EveryRevocationReportsRevoked => racing_revocations_have_one_winner;
        key_removal::RevokesActiveKeysOnly => a_disabled_or_expired_key_can_be_revoked;
        key_changes::RehashKeepsTheOldDigest => a_rehash_replaces_one_digest_and_changes_nothing_else;
        key_changes::RehashAlwaysReportsSuccess =>
            a_rehash_from_a_missing_or_to_an_existing_digest_changes_nothing
            racing_rehashes_of_one_secret_have_one_winner;

        key_removal::RevokesOnePage =>
            revoke_all_revokes_each_key_of_the_owner_with_an_event
            revoke_all_misses_no_key_inserted_before_it_started;
        key_removal::RevokesOneByOne => revoke_all_is_atomic;
        key_removal::LogsRevocationsLater => a_visible_revocation_has_its_event_and_feed_entry;
        key_removal::AnnouncesRevocationsLater => a_visible_revocation_has_its_event_and_feed_entry;
        key_removal::DeletesTheLogToo => delete_removes_the_key_and_its_secrets_and_keeps_its_events;
        key_removal::PurgesKeysWithoutExpiry => a_purge_removes_keys_that_ended_before_the_cutoff_and_nothing_else;
        key_removal::PurgesWithoutLimit =>
            a_purge_stops_at_its_limit
            a_purge_of_events_removes_old_ones_up_to_its_limit;
        key_removal::SelectsThenPurges => racing_purges_remove_each_key_once;

        usage_history::LastWriteWins => last_use_only_moves_forward;
        usage_history::EveryUseIsTheFirst => a_first_use_is_recorded_once_with_its_event;
        usage_history::ReadsThenRecordsTheFirstUse => racing_first_uses_are_recorded_once;
        usage_history::RecordsOneUsePerKey => uses_of_both_secrets_of_a_key_are_recorded;
        usage_history::StopsAtAnUnknownKey => uses_of_unknown_keys_are_skipped;
        usage_history::UsesIncrementTheRevision => recording_a_use_changes_nothing_else;
        usage_history::WritesBackStaleKeys => a_revocation_racing_other_writes_wins;

        audit_log::DropsEvents => every_change_writes_its_audit_event;
        audit_log::LogsRefusedInserts => refused_changes_write_no_event_and_no_feed_entry;
        audit_log::LosesTheCount => every_field_of_an_event_round_trips;
        audit_log::OverwritesEvents => an_event_is_recorded_once;
        audit_log::ReadsThenRecords => racing_records_of_an_event_add_it_once;
        audit_log::UntilIsInclusive => events_match_the_query_newest_first;

        change_feed::DropsChanges => every_change_enters_the_feed;
        change_feed::StartsAtTheBeginning => without_a_cursor_the_feed_starts_at_its_end;
        change_feed::CommitsOutOfOrder => a_reader_of_the_feed_misses_no_change;
        change_feed::AnnouncesBeforeCommit => a_change_in_the_feed_is_already_visible;
        change_feed::NeverReportsMore => the_feed_reports_that_it_has_more;
        change_feed::NeverReportsMissed =>
            a_purge_is_reported_to_readers_that_missed_entries
            a_purge_loses_no_entry_silently
            an_unknown_cursor_is_reported_as_missed;
        change_feed::AnnouncesNothing =>
            an_announcement_feeds_each_key_of_the_owner_and_changes_nothing;
        change_feed::AnnouncesActiveKeysOnly => an_announcement_feeds_disabled_and_expired_keys;
        change_feed::SleepsUntilTheTimeout => a_change_ends_a_wait_that_started_before_it;
        change_feed::PollsInSecret => a_pushed_wait_ends_sooner_than_a_poll;
        change_feed::WakesOneWaiter => a_change_ends_every_wait;
        change_feed::RevocationsWakeNoReader => every_kind_of_change_ends_a_wait;
        change_feed::IgnoresExistingChanges => a_wait_for_an_existing_change_ends;
        change_feed::NeverTimesOut => a_wait_without_a_change_times_out;

        atomicity::LogsInASecondTransaction =>
            a_dropped_insert_is_atomic
            a_dropped_update_is_atomic
            a_dropped_rotation_is_atomic
            a_dropped_revocation_is_atomic
            a_dropped_revoke_all_is_atomic
            a_dropped_deletion_is_atomic
            a_dropped_purge_is_atomic
            a_dropped_record_of_a_use_is_atomic;
        clock::StandsStill => the_clock_of_the_server_advances_as_time_passes;
        clock::ConfusesUnits => the_clock_of_the_server_advances_as_time_passes;
        clock::RunsTooFast => the_clock_of_the_server_advances_as_time_passes;
        clock::AsksReplicas =>
            the_clock_of_the_server_advances_as_time_passes
            all_handles_return_the_time_of_one_clock;
        counters::GrantsOneTooMany => charges_are_granted_exactly_up_to_the_limit;
        counters::ReadsThenCharges => racing_charges_never_exceed_a_quota;
        counters::ChargesOneByOne =>
            counters_are_charged_together_or_not_at_all
            a_dropped_charge_is_atomic;
        counters::LocksInArgumentOrder => racing_charges_of_two_counters_do_not_deadlock;
        counters::IgnoresPeriods => a_new_period_starts_at_zero_and_an_old_one_never_reopens;
        counters::KeepsPeriodsOfAWrongClock => a_period_that_begins_too_late_restarts_at_zero;
        counters::ReopensOldPeriods => a_new_period_starts_at_zero_and_an_old_one_never_reopens;
        counters::IgnoresTheTenant => counters_of_different_owners_and_periods_are_independent;
        counters::RefundsIntoTheCurrentPeriod => a_refund_applies_only_to_its_own_period;
        counters::PurgesCountersWithoutLimit =>
            a_purge_of_counters_removes_old_anonymous_ones_up_to_its_limit;
        counters::RotationsResetCounters => a_keys_counters_last_as_long_as_the_key;

        usage_history::AddsAnHourOncePerCall => usage_adds_up_by_key_and_hour;
        usage_history::CountsLimitedAsDenied => usage_adds_up_by_key_and_hour;
        usage_history::CountsIn32Bits => counts_beyond_32_bits_add_up;
        usage_history::ReadsThenAdds => racing_additions_of_usage_add_up;
        usage_history::KeepsUsageOfUnknownKeys => usage_of_unknown_keys_is_skipped_and_usage_is_deleted_with_its_key;
        usage_history::ShowsUsageToAllOwners => another_owners_usage_cannot_be_read;
        usage_history::PurgesUsageWithoutLimit =>
            a_purge_of_usage_removes_old_hours_up_to_its_limit;

        one_time_codes::CodesCanBeReused => a_code_is_accepted_once;
        one_time_codes::IgnoresTheAddress => a_code_is_valid_only_for_its_address;
        one_time_codes::GrantsAnExtraTry => a_code_has_a_fixed_number_of_tries;
        one_time_codes::CodesNeverExpire => a_code_expires_at_its_end;
        one_time_codes::NewCodesInheritUsedTries => a_new_code_replaces_the_former_one;
        one_time_codes::ReadsThenConsumes =>
            racing_attempts_get_no_extra_tries
            racing_right_attempts_have_one_winner;
        one_time_codes::LeavesALockWhenDropped => a_dropped_code_attempt_is_atomic;
        one_time_codes::PurgesCodesWithoutLimit => a_purge_of_codes_removes_expired_ones_up_to_its_limit;
        one_time_codes::PurgesNoCodes => a_purge_of_codes_removes_expired_ones_up_to_its_limit;

        sizes::TruncatesMetadata =>
            a_key_at_every_maximum_round_trips
            an_update_to_every_maximum_round_trips;
        sizes::TruncatesUserAgents =>
            a_key_at_every_maximum_round_trips
            events_at_every_maximum_round_trip;
        sizes::TruncatesCounterKeys => counters_of_the_longest_owners_are_independent;

        reopening::RevokesInMemory => keys_and_events_survive_a_reopening;
        reopening::BuffersEvents => keys_and_events_survive_a_reopening;
        reopening::RestartsTheFeed => the_change_feed_survives_a_reopening;
        reopening::CountsInMemory =>
            counters_survive_a_reopening
            usage_history_survives_a_reopening
            one_time_codes_survive_a_reopening;

        atomicity::RehashesInTwoSteps => a_dropped_rehash_is_atomic;
    };
    cases.into_iter()
}

/// Runs a suite on sabotaged stores. Opened again, a store is the same object.
async fn report<S: Sabotage + Default>(suite: Suite) -> Report {
    let open = async |opened: &mut Option<Arc<Sabotaged<S>>>| {
        if let Some(store) = opened {
            store.reopened().await;
        }
        let store = opened.get_or_insert_default();
        vec![store.clone() as Arc<dyn KeyStore>, store.clone()]
    };
    suite.report_reopening(async || None, open).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_suite_catches_every_sabotage() {
    let mut undetected = Vec::new();
    for Case { name, report, checks } in cases() {
        // A short patience only shortens the wait on a wrong state. A check stops at the first
        // round that fails, so many rounds cost nothing.
        let suite = Suite::new().only(checks).rounds(500).patience(Duration::from_millis(20));
        let report = report(suite).await;
        undetected.extend(report.passed.iter().map(|check| format!("{name} by {check}")));
    }
    assert!(undetected.is_empty(), "sabotages that no check detected: {undetected:#?}");
}

/// The wrapper itself is correct, so a failed check is caused by the sabotage.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_suite_passes_a_wrapper_without_sabotage() {
    let report = report::<NoSabotage>(Suite::new().rounds(5)).await;
    assert!(report.failed.is_empty(), "{report}");
    assert!(report.skipped.is_empty(), "{:?}", report.skipped);
}

#[test]
fn every_check_can_fail() {
    let failing: BTreeSet<&str> = cases().flat_map(|case| case.checks.iter().copied()).collect();
    let all: BTreeSet<&str> = conformance::checks().collect();
    let untested: Vec<_> = all.difference(&failing).collect();
    assert!(untested.is_empty(), "checks that fail on no sabotaged store: {untested:#?}");
}
