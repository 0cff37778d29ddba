//! Connections that are cut in the middle of a change, after any number of bytes in either direction.

use std::time::Duration;

use keyward::{
    ApiKeys, Error, ErrorKind, KeyId, Owner, VerifyError, VerifyRequest,
    manage::{KeyChange, NewKey, Rotation},
    store::StoreErrorKind,
};
use sqlx::{PgPool, postgres::PgPoolOptions};

use super::{Stage, connect, ended, patient};
use crate::support::{
    format, owner,
    servers::{Proxy, postgres::Options, proxy::Direction},
};

struct Cuts {
    stage: Stage,
    proxy: Proxy,
    /// Does not use the proxy.
    pool: PgPool,
}

/// The changes of an owner, in one snapshot.
#[derive(Debug, PartialEq)]
struct Traces {
    changes: i64,
    /// Changes that were begun, including those that were rolled back.
    begun: i64,
}

impl Cuts {
    async fn new() -> Option<Self> {
        let server = Options::default().start()?;
        let proxy = server.proxy();
        let stage = Stage::new(server).await;
        let pool = PgPoolOptions::new().connect(stage.database.url()).await.unwrap();
        // A sequence keeps its value when a transaction is rolled back.
        stage.sql(
            "CREATE SEQUENCE begun; CREATE FUNCTION count_begun() RETURNS trigger LANGUAGE plpgsql \
             AS 'BEGIN PERFORM nextval(''begun''); RETURN NULL; END'; \
             CREATE TRIGGER begun AFTER INSERT ON keyward_audit \
             FOR EACH STATEMENT EXECUTE FUNCTION count_begun()",
        );
        Some(Self { stage, proxy, pool })
    }

    /// A node with one connection through the proxy.
    async fn node(&self) -> ApiKeys {
        let url = self.stage.server.url_through(&self.proxy, &self.stage.database);
        let store = connect(patient().connections(1).without_migration(), &url).await;
        ApiKeys::builder_on(store, format())
            .no_cache()
            .accounts(self.stage.service.host.clone())
            .build()
    }

    /// Checks that each change is complete or absent: the key, its secret, its event, its entry in the
    /// change feed.
    async fn traces(&self, owner: &Owner) -> Traces {
        let sql = "SELECT (SELECT count(*) FROM keyward_audit WHERE account = $1), \
            (SELECT coalesce(sum(revision + 1), 0)::bigint FROM keyward_keys WHERE account = $1), \
            (SELECT count(*) FROM (SELECT key_id FROM keyward_changes \
             UNION ALL SELECT key_id FROM keyward_unnumbered_changes) c \
             JOIN keyward_keys ON id = key_id WHERE account = $1), \
            (SELECT count(*) FROM keyward_keys WHERE account = $1), \
            (SELECT count(*) FROM keyward_secrets JOIN keyward_keys ON id = key_id \
             WHERE account = $1 AND NOT former), \
            (SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM begun)";
        let row: (i64, i64, i64, i64, i64, i64) =
            sqlx::query_as(sql).bind(owner.account()).fetch_one(&self.pool).await.unwrap();
        let (events, revisions, entries, keys, secrets, begun) = row;
        assert_eq!((revisions, entries, secrets), (events, events, keys), "a change is torn");
        Traces { changes: events, begun }
    }

    /// Makes a change with at most one fault. Returns the error, and how many changes were made.
    async fn change(
        &self,
        name: &str,
        change: impl AsyncFn(&ApiKeys, &Owner, KeyId) -> Result<(), Error>,
        arm: impl FnOnce(&Proxy),
    ) -> (Option<ErrorKind>, i64) {
        let owner = owner("acme", name);
        let new = NewKey::new(&owner, "ci").unwrap();
        let issued = self.stage.service.keys().issue(new, &actor()).await.unwrap();
        let node = self.node().await;
        let before = self.traces(&owner).await;
        arm(&self.proxy);
        let answer = ended(change(&node, &owner, issued.key.id)).await;
        let after = self.traces(&owner).await;
        let (changes, begun) = (after.changes - before.changes, after.begun - before.begun);
        assert!(begun <= 1, "{name}: it was begun {begun} times");
        let error = answer.as_ref().err().map(Error::kind);
        match error {
            None => assert_eq!(changes, 1, "{name}: acknowledged but absent"),
            Some(ErrorKind::Unavailable) => assert_eq!(changes, 0, "{name}: {answer:?}"),
            Some(ErrorKind::OutcomeUnknown) => assert!(changes <= 1, "{name}"),
            Some(other) => panic!("{name}: {other:?}"),
        }
        (error, changes)
    }
}

/// Cuts a change after more and more bytes, until the cuts come after its end, and then during its
/// commit.
async fn sweep(change: impl AsyncFn(&ApiKeys, &Owner, KeyId) -> Result<(), Error>) {
    let Some(cuts) = Cuts::new().await else { return };
    for way in [Direction::ToServer, Direction::ToClient] {
        // The earliest cuts do no harm: a call that has changed nothing uses another connection.
        let (mut cut, mut through) = (0, 0);
        for bytes in (1..20_000).step_by(STEP) {
            let name = format!("{way:?}-{bytes}");
            let answer = cuts.change(&name, &change, |proxy| proxy.cut_after(bytes, way)).await;
            // A pending cut would hit the next node.
            cuts.proxy.cut_after(usize::MAX, way);
            match answer {
                (None, _) => through += 1,
                (Some(_), _) => (cut, through) = (cut + 1, 0),
            }
            if cut > 0 && through == 4 {
                break;
            }
        }
        assert!(cut >= 5 && through == 4, "{way:?}: {cut} cut, {through} through");
    }
    let lost = cuts.change("lost", &change, |proxy| proxy.cut_request(COMMIT)).await;
    assert_eq!(lost, (Some(ErrorKind::OutcomeUnknown), 0), "the request was lost");
    let lost = cuts.change("lost-reply", &change, |proxy| proxy.swallow_reply_to(COMMIT)).await;
    assert_eq!(lost, (Some(ErrorKind::OutcomeUnknown), 1), "the reply was lost");
}

fn actor() -> keyward::Actor {
    keyward::model::Actor::system("test")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issue_that_is_cut_is_complete_or_absent() {
    sweep(async |node, owner, _| {
        node.issue(NewKey::new(owner, "ci").unwrap(), &actor()).await.map(drop)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_is_cut_is_complete_or_absent() {
    let change = KeyChange::default().name("other").unwrap();
    sweep(async |node, owner, id| node.update(owner, id, &change, &actor()).await.map(drop)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_that_is_cut_is_complete_or_absent() {
    sweep(async |node, owner, id| {
        node.rotate(owner, id, Rotation::immediate(), &actor()).await.map(drop)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_that_is_cut_is_complete_or_absent() {
    sweep(async |node, owner, id| node.revoke(owner, id, "lost", &actor()).await.map(drop)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verification_that_is_cut_succeeds_on_another_connection() {
    let Some(cuts) = Cuts::new().await else { return };
    let issued = cuts.stage.service.issue().await;
    for way in [Direction::ToServer, Direction::ToClient] {
        for bytes in (1..2_000).step_by(STEP) {
            let node = cuts.node().await;
            cuts.proxy.cut_after(bytes, way);
            let answer = ended(node.verify(issued.secret.expose(), &VerifyRequest::new())).await;
            assert!(answer.is_ok(), "{way:?}, {bytes}: {answer:?}");
            cuts.proxy.cut_after(usize::MAX, way);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_every_connection_is_cut_it_is_unavailable() {
    let Some(cuts) = Cuts::new().await else { return };
    let issued = cuts.stage.service.issue().await;
    let node = cuts.node().await;
    cuts.proxy.cut();
    let answer = ended(node.verify(issued.secret.expose(), &VerifyRequest::new())).await;
    assert!(matches!(answer, Err(VerifyError::Unavailable(_))), "{answer:?}");
    cuts.proxy.heal();
    super::until("it verifies again", async || {
        node.verify(issued.secret.expose(), &VerifyRequest::new()).await.ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_reply_is_late_has_an_unknown_outcome() {
    let Some(cuts) = Cuts::new().await else { return };
    let url = cuts.stage.server.url_through(&cuts.proxy, &cuts.stage.database);
    let node =
        ApiKeys::builder_on(connect(super::hasty(), &url).await, format()).no_cache().build();
    let owner = owner("acme", "late");
    let before = cuts.traces(&owner).await;
    cuts.proxy.hold_reply_to(COMMIT);
    // On a busy machine, the hasty node may time out before the commit.
    let error = super::until("the commit is sent", async || {
        match node.issue(NewKey::new(&owner, "ci").unwrap(), &actor()).await {
            Ok(_) => panic!("its reply is held"),
            Err(error) if error.is_unavailable() => None,
            Err(error) => Some(error),
        }
    })
    .await;
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown);
    cuts.proxy.sprung().await;
    assert_eq!(cuts.traces(&owner).await.changes - before.changes, 1, "it was made once");
    cuts.proxy.resume();
}

/// Each step alone is within the time limit.
#[tokio::test(flavor = "multi_thread")]
async fn the_steps_of_a_change_share_its_time_limit() {
    let Some(cuts) = Cuts::new().await else { return };
    let url = cuts.stage.server.url_through(&cuts.proxy, &cuts.stage.database);
    let limit = Duration::from_secs(2);
    let store = connect(patient().timeout(limit).connections(1), &url).await;
    super::until("its statement is prepared", async || {
        store.usage_history().unwrap().add_usage(&[]).await.ok()
    })
    .await;
    // There are three round trips, and each takes less than half of the time limit.
    cuts.proxy.delay(limit * 9 / 40);
    let error = ended(store.usage_history().unwrap().add_usage(&[])).await.unwrap_err();
    let kinds = [StoreErrorKind::Unavailable, StoreErrorKind::OutcomeUnknown];
    assert!(kinds.contains(&error.kind()), "{error:?}");
}

/// Not a divisor of message sizes, so that the cuts hit all parts of messages.
const STEP: usize = 19;
/// Includes the terminating NUL: the text of BEGIN has READ COMMITTED.
const COMMIT: &str = "COMMIT\0";
