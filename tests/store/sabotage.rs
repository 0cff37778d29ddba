//! Stores that break one promise each, and the checks that have to notice.

mod changes;
mod codes;
mod feed;
mod inserts;
mod log;
mod quotas;
mod reads;
mod removal;
mod scope;
mod tallies;
mod tenants;
mod torn;
mod usage;
mod wrapper;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use keyward::{
    KeyStore,
    store::conformance::{self, Suite},
};

use self::wrapper::{Honest, Sabotage, Sabotaged};

/// A sabotaged store and the checks that must fail on it.
struct Case {
    name: &'static str,
    open: fn() -> Vec<Arc<dyn KeyStore>>,
    checks: &'static [&'static str],
}

macro_rules! cases {
    ($($sabotage:path => $($check:ident)+;)*) => {
        [$(Case {
            name: stringify!($sabotage),
            open: open::<$sabotage>,
            checks: &[$(stringify!($check)),+],
        }),*]
    };
}

fn cases() -> impl Iterator<Item = Case> {
    let cases = cases! {
        inserts::IgnoresTheLimit => insert_is_refused_at_the_limit;
        inserts::DisabledKeysDoNotCount =>
            expired_and_revoked_keys_free_a_slot_and_disabled_ones_do_not;
        inserts::CountsThenInserts => racing_inserts_never_exceed_the_limit;
        inserts::Upserts =>
            an_insert_overwrites_nothing
            racing_inserts_of_one_secret_make_one_key;

        reads::LooksForTheFirstCandidate => find_returns_the_key_of_any_candidate_digest;
        reads::IgnoresTheTag => digests_are_compared_whole_including_the_hasher_tag;
        reads::ComparesTheBeginning => digests_are_compared_whole_including_the_hasher_tag;
        reads::RemembersWhatItFound => find_returns_the_latest_committed_key;
        reads::TakesNoScopesForAllScopes => every_field_of_a_key_round_trips;
        reads::TrimsReasons => every_field_set_by_a_write_round_trips;
        reads::ListsOldestFirst => keys_are_listed_newest_first_up_to_the_limit;
        reads::ExpiresTooLate => a_status_filter_agrees_with_key_status;
        reads::PagesByOffset =>
            pages_list_each_key_once_while_keys_are_added
            pages_list_each_event_once_while_events_are_added;

        tenants::KnowsOnlyTenantsWithNames => each_tenant_that_has_keys_is_listed_once;
        tenants::ListsTenantsOfKeys => each_tenant_that_has_keys_is_listed_once;
        tenants::KeepsTenantsWithoutKeys => each_tenant_that_has_keys_is_listed_once;
        tenants::ListsTenantsOfUnrevokedKeys => each_tenant_that_has_keys_is_listed_once;
        tenants::PagesTenantsByOffset => pages_list_each_tenant_once_while_others_appear_and_disappear;
        tenants::StopsBehindWhoIsGone => pages_list_each_tenant_once_while_others_appear_and_disappear;

        scope::IgnoresCase => owners_are_compared_exactly;
        scope::KnowsNoAdministrators => an_administrator_reaches_every_key_of_the_tenant;
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

        changes::UpdatesTheHint => an_update_writes_its_fields_and_nothing_else;
        changes::UpdatesAnyRevision =>
            an_update_applies_only_to_the_revision_it_was_based_on
            racing_updates_of_one_revision_have_one_winner;
        changes::UpdatesBringBackTheDead =>
            an_update_does_not_change_a_revoked_key
            a_revocation_racing_other_writes_wins;
        changes::RotationsMoveTheExpiry =>
            a_rotation_retires_the_current_secret_and_changes_nothing_else;
        changes::KeepsEverySecret =>
            a_second_rotation_removes_the_retiring_secret
            a_replaced_secret_is_removed_and_the_retiring_one_stays;
        changes::RemovesTheWrongSecret => a_replaced_secret_is_removed_and_the_retiring_one_stays;
        changes::RotatesOverOthers => a_rotation_to_an_existing_digest_changes_nothing;
        changes::RotatesAnyRevision =>
            a_rotation_applies_only_to_the_revision_it_was_based_on
            racing_rotations_of_one_revision_have_one_winner;
        changes::LastRevocationStays => a_second_revocation_keeps_the_first_instant_and_reason;
        changes::EveryRevocationIsTheFirst => racing_revocations_have_one_winner;
        changes::RevokesActiveKeysOnly => a_disabled_or_expired_key_can_be_revoked;
        changes::RehashKeepsTheFormerDigest => a_rehash_replaces_one_digest_and_changes_nothing_else;
        changes::RehashIsAlwaysDone =>
            a_rehash_from_a_missing_or_to_an_existing_digest_changes_nothing
            racing_rehashes_of_one_secret_have_one_winner;

        removal::RevokesOnePage =>
            revoke_all_revokes_each_key_of_the_owner_with_an_event
            revoke_all_misses_no_key_inserted_before_it_started;
        removal::RevokesOneByOne => revoke_all_is_atomic;
        removal::DeletesTheLogAsWell => delete_removes_the_key_and_its_secrets_and_keeps_its_events;
        removal::PurgesWhatNeverExpires => a_purge_removes_keys_that_ended_before_the_cutoff_and_nothing_else;
        removal::PurgesWithoutLimit =>
            a_purge_stops_at_its_limit
            a_purge_of_events_removes_old_ones_up_to_its_limit;
        removal::CountsThenPurges => racing_purges_remove_each_key_once;

        usage::LastWriteIsTheLastUse => last_use_only_moves_forward;
        usage::EveryUseIsTheFirst => a_first_use_is_recorded_once_with_its_event;
        usage::LooksThenRecordsTheFirstUse => racing_first_uses_are_recorded_once;
        usage::StopsAtAnUnknownKey => uses_of_unknown_keys_are_skipped;
        usage::CountsUsesAsRevisions => recording_a_use_changes_nothing_else;
        usage::WritesBackWhatItRead => a_revocation_racing_other_writes_wins;

        log::DropsEvents => every_change_writes_its_audit_event;
        log::LogsAttempts => refused_changes_write_no_event_and_no_feed_entry;
        log::LosesTheCount => every_field_of_an_event_round_trips;
        log::RecordsOver => an_event_is_recorded_once;
        log::UntilAndIncluding => events_match_the_query_newest_first;

        feed::DropsChanges => every_change_enters_the_feed;
        feed::BeginsAtTheStart => without_a_cursor_the_feed_starts_at_its_end;
        feed::CommitsOutOfOrder => a_reader_of_the_feed_misses_no_change;
        feed::TellsBeforehand => a_change_in_the_feed_is_already_visible;
        feed::NeverSaysMore => the_feed_reports_that_it_has_more;
        feed::NeverSaysMissed =>
            a_purge_is_reported_to_readers_that_missed_entries
            a_purge_loses_no_entry_silently
            an_unknown_cursor_is_reported_as_missed;
        feed::AnnouncesNothing =>
            an_announcement_feeds_each_key_of_the_owner_and_changes_nothing;
        feed::SleepsThrough => a_change_ends_a_wait_that_started_before_it;
        feed::HearsOnlyWhatIsNew => a_wait_for_an_existing_change_ends;
        feed::WaitsForEver => a_wait_without_a_change_times_out;

        torn::LogsAfterwards =>
            a_dropped_insert_is_atomic
            a_dropped_update_is_atomic
            a_dropped_rotation_is_atomic
            a_dropped_revocation_is_atomic
            a_dropped_revoke_all_is_atomic
            a_dropped_deletion_is_atomic
            a_dropped_purge_is_atomic
            a_dropped_record_of_a_use_is_atomic;
        quotas::GrantsOneTooMany => charges_are_granted_exactly_up_to_the_limit;
        quotas::LooksThenSpends => racing_charges_never_exceed_a_quota;
        quotas::SpendsOneByOne =>
            counters_are_charged_together_or_not_at_all
            a_dropped_charge_is_atomic;
        quotas::LocksAsTheyCome => racing_charges_of_two_counters_do_not_deadlock;
        quotas::KnowsNoPeriods => a_new_period_starts_at_zero_and_an_old_one_never_reopens;
        quotas::CountsByAccount => counters_of_different_owners_and_periods_are_independent;
        quotas::RefundsIntoThePresent => a_refund_applies_only_to_its_own_period;
        quotas::RotationsRefill => a_keys_counters_last_as_long_as_the_key;

        tallies::CountsAnHourOnceACall => usage_adds_up_by_key_and_hour;
        tallies::CountsLimitedAsDenied => usage_adds_up_by_key_and_hour;
        tallies::AddsToWhatItRead => racing_additions_of_usage_add_up;
        tallies::CountsUnknownKeys => usage_of_unknown_keys_is_skipped_and_usage_is_deleted_with_its_key;
        tallies::ShowsCountsToAll => another_owners_usage_cannot_be_read;
        tallies::PurgesCountsWithoutLimit =>
            a_purge_of_usage_removes_old_hours_up_to_its_limit;

        codes::CodesWorkAgain => a_code_is_accepted_once;
        codes::OneCodeForAll => a_code_is_valid_only_for_its_address;
        codes::GrantsATryTooMany => a_code_has_a_fixed_number_of_tries;
        codes::CodesLastForEver => a_code_expires_at_its_end;
        codes::TriesAreOfTheAddress => a_new_code_replaces_the_former_one;
        codes::ComparesThenTakes =>
            racing_attempts_get_no_extra_tries
            racing_right_attempts_have_one_winner;
        codes::MarksWhatItTries => a_dropped_code_attempt_is_atomic;
        codes::PurgesCodesWithoutLimit => a_purge_of_codes_removes_expired_ones_up_to_its_limit;
        codes::PurgesNoCodes => a_purge_of_codes_removes_expired_ones_up_to_its_limit;

        torn::RehashesInTwoSteps => a_dropped_rehash_is_atomic;
    };
    cases.into_iter()
}

fn open<S: Sabotage + Default>() -> Vec<Arc<dyn KeyStore>> {
    let store = Arc::new(Sabotaged::<S>::default());
    vec![store.clone(), store]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_suite_catches_every_sabotage() {
    let mut unnoticed = Vec::new();
    for Case { name, open, checks } in cases() {
        // Patience only decides for how long a wrong state is looked at, and a check that fails
        // ends with the round in which it does.
        let suite = Suite::new().only(checks).rounds(500).patience(Duration::from_millis(20));
        let report = suite.report(async || open()).await;
        unnoticed.extend(report.passed.iter().map(|check| format!("{name} by {check}")));
    }
    assert!(unnoticed.is_empty(), "not noticed: {unnoticed:#?}");
}

/// The wrapper itself breaks nothing, so what a check catches is the sabotage.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_suite_passes_a_wrapper_without_sabotage() {
    Suite::new().rounds(5).run(async || open::<Honest>()).await;
}

#[test]
fn every_check_can_fail() {
    let failing: BTreeSet<&str> = cases().flat_map(|case| case.checks.iter().copied()).collect();
    let all: BTreeSet<&str> = conformance::checks().collect();
    let untested: Vec<_> = all.difference(&failing).collect();
    assert!(untested.is_empty(), "no sabotage makes these fail: {untested:#?}");
}
