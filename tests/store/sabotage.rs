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

        reads::LooksForTheFirstCandidate => a_digest_is_found_with_its_key;
        reads::IgnoresTheTag => a_digest_is_compared_whole_and_with_its_tag;
        reads::ComparesTheBeginning => a_digest_is_compared_whole_and_with_its_tag;
        reads::RemembersWhatItFound => a_key_is_found_as_it_is_now;
        reads::TakesNoScopesForAllScopes => every_field_of_a_key_survives_the_store;
        reads::TrimsReasons => every_field_that_a_write_sets_survives_the_store;
        reads::ListsOldestFirst => keys_are_listed_newest_first_up_to_the_limit;
        reads::ExpiresTooLate => a_status_filter_finds_what_the_key_says;
        reads::PagesByOffset =>
            pages_of_keys_cover_each_once_while_keys_are_added
            pages_of_events_cover_each_once_while_events_are_added;

        tenants::KnowsOnlyTenantsWithNames => each_tenant_that_has_keys_is_listed_once;
        tenants::ListsTenantsOfKeys => each_tenant_that_has_keys_is_listed_once;
        tenants::KeepsTenantsWithoutKeys => each_tenant_that_has_keys_is_listed_once;
        tenants::ListsTenantsOfUnrevokedKeys => each_tenant_that_has_keys_is_listed_once;
        tenants::PagesTenantsByOffset => pages_of_tenants_miss_none_while_others_come_and_go;
        tenants::StopsBehindWhoIsGone => pages_of_tenants_miss_none_while_others_come_and_go;

        scope::IgnoresCase => owners_that_differ_at_all_are_different;
        scope::KnowsNoAdministrators => an_administrator_reaches_every_key_of_the_tenant;
        scope::Unscoped =>
            another_owners_key_cannot_be_read
            another_owners_key_cannot_be_listed
            another_owners_key_cannot_be_updated
            another_owners_key_cannot_be_rotated
            another_owners_key_cannot_be_revoked
            another_owners_keys_cannot_be_revoked_together
            another_owners_key_cannot_be_deleted
            another_owners_key_cannot_be_used
            another_owners_events_cannot_be_read;

        changes::UpdatesTheHint => an_update_writes_its_fields_and_nothing_else;
        changes::UpdatesAnyRevision =>
            an_update_applies_only_to_the_revision_it_was_based_on
            racing_updates_of_one_revision_have_one_winner;
        changes::UpdatesBringBackTheDead =>
            an_update_does_nothing_to_a_revoked_key
            a_revocation_racing_other_writes_wins;
        changes::RotationsMoveTheExpiry =>
            a_rotation_lets_the_former_secret_end_and_changes_nothing_else;
        changes::KeepsEverySecret =>
            a_second_rotation_removes_the_former_secret
            a_replaced_secret_is_gone_and_the_former_one_stays;
        changes::RemovesTheWrongSecret => a_replaced_secret_is_gone_and_the_former_one_stays;
        changes::RotatesOverOthers => a_rotation_to_a_digest_that_exists_changes_nothing;
        changes::RotatesAnyRevision =>
            a_rotation_applies_only_to_the_revision_it_was_based_on
            racing_rotations_of_one_revision_have_one_winner;
        changes::LastRevocationStays => the_first_revocation_stays;
        changes::EveryRevocationIsTheFirst => racing_revocations_have_one_winner;
        changes::RevokesActiveKeysOnly => a_disabled_or_expired_key_can_be_revoked;
        changes::RehashKeepsTheFormerDigest => a_rehash_moves_a_secret_and_changes_nothing_else;
        changes::RehashIsAlwaysDone =>
            a_rehash_from_or_to_nowhere_changes_nothing
            racing_rehashes_of_one_secret_have_one_winner;

        removal::RevokesOnePage =>
            revoke_all_revokes_each_key_of_the_owner_with_an_event
            revoke_all_misses_no_key_inserted_before_it_began;
        removal::RevokesOneByOne => revoke_all_is_one_step;
        removal::DeletesTheLogAsWell => a_deleted_key_is_gone_with_its_secrets_and_its_events_stay;
        removal::PurgesWhatNeverExpires => a_purge_removes_what_was_dead_before_and_nothing_else;
        removal::PurgesWithoutLimit =>
            a_purge_stops_at_its_limit
            a_purge_of_events_removes_the_old_ones_up_to_its_limit;
        removal::CountsThenPurges => racing_purges_remove_each_key_once;

        usage::LastWriteIsTheLastUse => uses_move_forward_only;
        usage::EveryUseIsTheFirst => a_first_use_is_recorded_once_with_its_event;
        usage::LooksThenRecordsTheFirstUse => racing_first_uses_are_recorded_once;
        usage::StopsAtAnUnknownKey => a_use_of_an_unknown_key_is_passed_over;
        usage::CountsUsesAsRevisions => a_use_changes_nothing_else;
        usage::WritesBackWhatItRead => a_revocation_racing_other_writes_wins;

        log::DropsEvents => every_change_is_logged_with_the_event_that_came_with_it;
        log::LogsAttempts => what_was_refused_is_neither_logged_nor_fed;
        log::LosesTheCount => every_field_of_an_event_survives_the_store;
        log::RecordsOver => an_event_is_recorded_once;
        log::UntilAndIncluding => events_are_filtered_as_the_query_says_newest_first;

        feed::DropsChanges => every_change_enters_the_feed;
        feed::BeginsAtTheStart => the_feed_begins_at_its_end;
        feed::CommitsOutOfOrder => no_change_is_lost_to_a_reader_that_follows;
        feed::TellsBeforehand => what_the_feed_tells_of_has_happened;
        feed::NeverSaysMore => the_feed_tells_that_there_is_more;
        feed::NeverSaysMissed =>
            a_reader_behind_a_purge_of_the_feed_is_told
            a_purge_of_the_feed_leaves_no_silent_hole
            a_cursor_from_another_life_is_told;
        feed::AnnouncesNothing =>
            an_announcement_tells_of_each_key_of_the_owner_and_changes_nothing;
        feed::SleepsThrough => a_change_ends_a_wait_that_began_before_it;
        feed::HearsOnlyWhatIsNew => a_wait_for_a_change_that_is_there_ends;
        feed::WaitsForEver => a_wait_without_a_change_ends_when_it_is_told_to;

        torn::LogsAfterwards =>
            a_dropped_insert_is_whole_or_undone
            a_dropped_update_is_whole_or_undone
            a_dropped_rotation_is_whole_or_undone
            a_dropped_revocation_is_whole_or_undone
            a_dropped_revocation_of_all_is_whole_or_undone
            a_dropped_deletion_is_whole_or_undone
            a_dropped_purge_is_whole_or_undone
            a_dropped_use_is_whole_or_undone;
        quotas::GrantsOneTooMany => a_quota_is_spent_to_its_end_and_no_further;
        quotas::LooksThenSpends => racing_spenders_never_exceed_a_quota;
        quotas::SpendsOneByOne =>
            quotas_are_spent_together_or_not_at_all
            dropped_spending_is_whole_or_undone;
        quotas::LocksAsTheyCome => racing_spenders_of_two_quotas_never_lock_up;
        quotas::KnowsNoPeriods => a_new_period_begins_anew_and_an_old_one_never_comes_back;
        quotas::CountsByAccount => quotas_of_others_and_of_other_periods_are_apart;
        quotas::RefundsIntoThePresent => what_was_spent_is_given_back_within_its_period_only;
        quotas::RotationsRefill => what_a_key_has_spent_lasts_as_long_as_the_key;

        tallies::CountsAnHourOnceACall => what_is_counted_adds_up_by_key_and_hour;
        tallies::CountsLimitedAsDenied => what_is_counted_adds_up_by_key_and_hour;
        tallies::AddsToWhatItRead => racing_counts_add_up;
        tallies::CountsUnknownKeys => counts_of_unknown_keys_are_passed_over_and_go_with_the_key;
        tallies::ShowsCountsToAll => another_owners_counts_cannot_be_read;
        tallies::PurgesCountsWithoutLimit =>
            a_purge_of_counts_removes_the_old_ones_up_to_its_limit;

        codes::CodesWorkAgain => a_code_is_right_once;
        codes::OneCodeForAll => a_code_is_of_its_address_alone;
        codes::GrantsATryTooMany => a_code_has_so_many_tries_and_no_more;
        codes::CodesLastForEver => a_code_ends_at_its_instant;
        codes::TriesAreOfTheAddress => a_new_code_takes_the_place_of_the_former_one;
        codes::ComparesThenTakes =>
            racing_guesses_get_no_more_tries_than_there_are
            racing_right_codes_have_one_winner;
        codes::MarksWhatItTries => a_dropped_guess_is_whole_or_undone;
        codes::PurgesCodesWithoutLimit => a_purge_of_codes_removes_what_is_over_up_to_its_limit;
        codes::PurgesNoCodes => a_purge_of_codes_removes_what_is_over_up_to_its_limit;

        torn::RehashesInTwoSteps => a_dropped_rehash_is_whole_or_undone;
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
