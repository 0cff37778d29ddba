//! A connection that is cut anywhere: between any two bytes of a change, in either direction.

use std::collections::BTreeSet;

use keyward::{
    ApiKeys, Error, ErrorKind, KeyId, Owner, Request, VerifyError,
    keys::{KeyChange, NewKey, Rotation},
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
    /// Around the proxy.
    pool: PgPool,
}

/// What there is of an owner, in one snapshot.
#[derive(Debug, PartialEq)]
struct Traces {
    changes: i64,
    /// Changes that were begun, also if they were rolled back.
    begun: i64,
}

impl Cuts {
    async fn new() -> Option<Self> {
        let server = Options::default().start()?;
        let proxy = server.proxy();
        let stage = Stage::new(server).await;
        let pool = PgPoolOptions::new().connect(stage.database.url()).await.unwrap();
        // What a sequence has counted stays counted when the transaction is rolled back.
        stage.sql(
            "CREATE SEQUENCE begun; CREATE FUNCTION count_begun() RETURNS trigger LANGUAGE plpgsql \
             AS 'BEGIN PERFORM nextval(''begun''); RETURN NULL; END'; \
             CREATE TRIGGER begun AFTER INSERT ON keyward_audit \
             FOR EACH STATEMENT EXECUTE FUNCTION count_begun()",
        );
        Some(Self { stage, proxy, pool })
    }

    /// A node with one connection, which goes through the proxy.
    async fn node(&self) -> ApiKeys {
        let url = self.stage.server.url_through(&self.proxy, &self.stage.database);
        let store = connect(patient().connections(1).without_migration(), &url).await;
        ApiKeys::builder_on(store, format()).accounts(self.stage.service.host.clone()).build()
    }

    /// Each change is whole or not there: the key, its secret, its event, its entry in the feed.
    async fn traces(&self, owner: &Owner) -> Traces {
        let sql = "SELECT (SELECT count(*) FROM keyward_audit WHERE account = $1), \
            (SELECT coalesce(sum(revision + 1), 0)::bigint FROM keyward_keys WHERE account = $1), \
            (SELECT count(*) FROM keyward_changes JOIN keyward_keys ON id = key_id WHERE account = $1), \
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

    /// Cuts a change at one place after the other, until it is through several times in a row.
    async fn sweep(
        &self,
        way: Direction,
        change: impl AsyncFn(&ApiKeys, &Owner, KeyId) -> Result<(), Error>,
    ) {
        let mut seen = BTreeSet::new();
        let (mut through, mut bytes) = (0, 1);
        while through < 4 {
            let owner = owner("acme", &format!("{way:?}-{bytes}"));
            let new = NewKey::new(&owner, "ci").unwrap();
            let issued = self.stage.service.keys().issue(new, &self.stage.service.actor).await;
            let node = self.node().await;
            let before = self.traces(&owner).await;
            self.proxy.cut_after(bytes, way);
            let answer = ended(change(&node, &owner, issued.unwrap().key.id)).await;
            // Whoever still waits for the cut would cut the next node.
            self.proxy.cut_after(usize::MAX, way);
            let after = self.traces(&owner).await;
            let (changes, begun) = (after.changes - before.changes, after.begun - before.begun);
            assert!(begun <= 1, "{bytes}: it was tried again, {begun} times");
            match answer.as_ref().map_err(Error::kind) {
                Ok(()) => assert_eq!(changes, 1, "{bytes}: acknowledged and not there"),
                Err(ErrorKind::Unavailable) => assert_eq!(changes, 0, "{bytes}: {answer:?}"),
                Err(ErrorKind::OutcomeUnknown) => assert!(changes <= 1, "{bytes}"),
                Err(other) => panic!("{bytes}: {other:?}"),
            }
            seen.insert((format!("{:?}", answer.as_ref().map_err(Error::kind)), changes));
            through = if answer.is_ok() { through + 1 } else { 0 };
            bytes += STEP;
        }
        let seen: Vec<_> =
            seen.iter().map(|(answer, changes)| (answer.as_str(), *changes)).collect();
        let unknown = match way {
            // The last request came in part only.
            Direction::ToServer => ("Err(OutcomeUnknown)", 0),
            // The last reply was lost.
            Direction::ToClient => ("Err(OutcomeUnknown)", 1),
        };
        for expected in [("Ok(())", 1), ("Err(Unavailable)", 0), unknown] {
            assert!(seen.contains(&expected), "{expected:?} is not among {seen:?}");
        }
    }
}

async fn sweep(change: impl AsyncFn(&ApiKeys, &Owner, KeyId) -> Result<(), Error>) {
    let Some(cuts) = Cuts::new().await else { return };
    cuts.sweep(Direction::ToServer, &change).await;
    cuts.sweep(Direction::ToClient, &change).await;
}

fn actor() -> keyward::Actor {
    keyward::Actor::system("test")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issue_that_is_cut_anywhere_is_whole_or_not_there() {
    sweep(async |node, owner, _| {
        node.issue(NewKey::new(owner, "ci").unwrap(), &actor()).await.map(drop)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_is_cut_anywhere_is_whole_or_not_there() {
    let change = KeyChange::default().name("other").unwrap();
    sweep(async |node, owner, id| node.update(owner, id, &change, &actor()).await.map(drop)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_that_is_cut_anywhere_is_whole_or_not_there() {
    sweep(async |node, owner, id| {
        node.rotate(owner, id, Rotation::at_once(), &actor()).await.map(drop)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_that_is_cut_anywhere_is_whole_or_not_there() {
    sweep(async |node, owner, id| node.revoke(owner, id, "lost", &actor()).await.map(drop)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verification_that_is_cut_anywhere_is_answered_or_unavailable() {
    let Some(cuts) = Cuts::new().await else { return };
    let issued = cuts.stage.service.issue().await;
    for way in [Direction::ToServer, Direction::ToClient] {
        let (mut cut, mut through) = (0, 0);
        for bytes in (1..2_000).step_by(STEP) {
            let node = cuts.node().await;
            cuts.proxy.cut_after(bytes, way);
            match ended(node.verify(issued.secret.expose(), &Request::new())).await {
                Ok(_) => through += 1,
                Err(VerifyError::Unavailable(_)) => cut += 1,
                Err(other) => panic!("{bytes}: {other:?}"),
            }
            cuts.proxy.cut_after(usize::MAX, way);
        }
        assert!(through > 0, "{way:?}: {cut} cut");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_every_connection_is_cut_it_is_unavailable() {
    let Some(cuts) = Cuts::new().await else { return };
    let issued = cuts.stage.service.issue().await;
    let node = cuts.node().await;
    cuts.proxy.cut();
    let answer = ended(node.verify(issued.secret.expose(), &Request::new())).await;
    assert!(matches!(answer, Err(VerifyError::Unavailable(_))), "{answer:?}");
    cuts.proxy.heal();
    super::until("it verifies again", async || {
        node.verify(issued.secret.expose(), &Request::new()).await.ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_reply_is_lost_or_late_has_an_unknown_outcome() {
    let Some(cuts) = Cuts::new().await else { return };
    let url = cuts.stage.server.url_through(&cuts.proxy, &cuts.stage.database);
    let hasty = connect(super::hasty(), &url).await;
    let node = ApiKeys::builder_on(hasty, format()).build();
    for (n, late) in [false, true].into_iter().enumerate() {
        let owner = owner("acme", &format!("late-{n}"));
        let issue = async || node.issue(NewKey::new(&owner, "ci").unwrap(), &actor()).await;
        let before = cuts.traces(&owner).await;
        match late {
            true => cuts.proxy.hold_reply_to("COMMIT"),
            false => cuts.proxy.swallow_reply_to("COMMIT"),
        }
        // A machine that is too busy for the hasty node does not get as far as the commit.
        let error = super::until("the commit is sent", async || match issue().await {
            Ok(_) => panic!("its reply was lost"),
            Err(error) if error.is_unavailable() => None,
            Err(error) => Some(error),
        })
        .await;
        assert_eq!(error.kind(), ErrorKind::OutcomeUnknown);
        cuts.proxy.sprung().await;
        cuts.proxy.resume();
        let after = cuts.traces(&owner).await;
        assert_eq!(after.changes - before.changes, 1, "it happened, and once");
    }
}

/// Not a divisor of what messages measure, so that the cuts fall into all parts of them.
const STEP: usize = 53;
