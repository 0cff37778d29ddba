use std::sync::Arc;

use keyward::{
    Access, AuditQuery, ErrorKind, Hasher, HmacSha256Hasher, Limits, Pepper, Sha256Hasher, Status,
    VerifyRequest,
    audit::EventKind,
    manage::{KeyChange, Page, Rotation},
};
use tokio::{sync::Barrier, task::JoinSet};

use crate::support::{HOUR, Service, on_each_store};

const ROUNDS: usize = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixty_four_tasks_racing_at_a_limit_of_five_make_exactly_five() {
    on_each_store(async |handles| {
        for round in 0..ROUNDS {
            let mut service = Service::new(handles.clone());
            service.owner = crate::support::owner("acme", &format!("ada-{round}"));
            service.host.limit(&service.owner, Limits::default().max_active_keys(5));
            let (service, start) = (Arc::new(service), Arc::new(Barrier::new(64)));
            let mut tasks = JoinSet::new();
            for n in 0..64 {
                let (service, start) = (service.clone(), start.clone());
                tasks.spawn(async move {
                    start.wait().await;
                    let node = &service.nodes[n % service.nodes.len()];
                    node.issue(service.new_key(), &service.actor).await.map_err(|e| e.kind())
                });
            }
            let answers = tasks.join_all().await;
            let made = answers.iter().filter(|answer| answer.is_ok()).count();
            let refused =
                answers.iter().filter(|a| matches!(a, Err(ErrorKind::LimitReached))).count();
            assert_eq!((made, refused), (5, 59), "round {round}");
            let listed = service.keys().list(&service.owner, Page::first()).await.unwrap();
            assert_eq!(listed.keys.len(), 5);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_revoke_wins_every_race() {
    on_each_store(async |handles| {
        let service = Arc::new(Service::new(handles));
        for round in 0..ROUNDS {
            let issued = Arc::new(service.issue().await);
            let start = Arc::new(Barrier::new(7));
            let mut tasks = JoinSet::new();
            for n in 0..7 {
                let (service, start, issued) = (service.clone(), start.clone(), issued.clone());
                tasks.spawn(async move {
                    let keys = &service.nodes[(n + round) % service.nodes.len()];
                    let (ada, by, id) = (&service.owner, &service.actor, issued.key.id);
                    let narrow = KeyChange::default().access(Access::only(["a"]).unwrap());
                    start.wait().await;
                    // The results of the others do not matter, only the final state.
                    match n {
                        0 => keys.revoke(ada, id, "now", by).await.unwrap(),
                        1 => drop(keys.rotate(ada, id, Rotation::overlap(HOUR), by).await),
                        2 => drop(keys.update(ada, id, &narrow, by).await),
                        3 => drop(keys.disable(ada, id, by).await),
                        4 => drop(keys.enable(ada, id, by).await),
                        _ => {
                            drop(keys.verify(issued.secret.expose(), &VerifyRequest::new()).await);
                            keys.flush().await.unwrap();
                        }
                    }
                });
            }
            tasks.join_all().await;
            let key = service.stored(issued.key.id).await;
            assert_eq!(key.status(service.now()), Status::Revoked, "round {round}");
            assert!(service.verify(&issued).await.is_err());
        }
        let query = AuditQuery::new(&service.owner).kind(EventKind::Revoked).limit(1_000);
        assert_eq!(service.keys().events(query).await.unwrap().len(), ROUNDS);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racing_rotations_leave_one_current_secret() {
    on_each_store(async |handles| {
        let service = Arc::new(Service::new(handles));
        for _ in 0..20 {
            let id = service.issue().await.key.id;
            let mut tasks = JoinSet::new();
            for n in 0..8 {
                let service = service.clone();
                tasks.spawn(async move {
                    let node = &service.nodes[n % service.nodes.len()];
                    node.rotate(&service.owner, id, Rotation::immediate(), &service.actor).await
                });
            }
            let secrets: Vec<_> = tasks.join_all().await.into_iter().map(Result::unwrap).collect();
            let mut working = 0;
            for issued in &secrets {
                working += usize::from(service.verify(issued).await.is_ok());
            }
            assert_eq!(working, 1);
            assert_eq!(service.stored(id).await.revision, 8);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racing_updates_are_all_applied() {
    on_each_store(async |handles| {
        let service = Arc::new(Service::new(handles));
        let id = service.issue().await.key.id;
        let mut tasks = JoinSet::new();
        for n in 0..16 {
            let service = service.clone();
            tasks.spawn(async move {
                let node = &service.nodes[n % service.nodes.len()];
                let change = KeyChange::default().name(&format!("name {n}")).unwrap();
                node.update(&service.owner, id, &change, &service.actor).await.unwrap();
            });
        }
        tasks.join_all().await;
        assert_eq!(service.stored(id).await.revision, 16);
        let query = AuditQuery::new(&service.owner).kind(EventKind::Updated);
        assert_eq!(service.keys().events(query).await.unwrap().len(), 16);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_secret_is_always_found_while_it_moves_between_peppers() {
    on_each_store(async |handles| {
        let service = Service::new(handles.clone());
        let issued = service.issue().await;
        let text = issued.secret.expose().as_bytes();
        let peppers = (0..20).map(|id| HmacSha256Hasher::new(Pepper::new(id, [7; 32]).unwrap()));
        let mut digests = vec![Sha256Hasher.digest(text)];
        digests.extend(peppers.map(|pepper| pepper.digest(text)));
        let (first, last) = (digests[0], digests[20]);
        let store = handles[0].clone();
        let moving = tokio::spawn(async move {
            for _ in 0..200 {
                assert!(store.rehash(&first, &last).await.unwrap());
                assert!(store.rehash(&last, &first).await.unwrap());
            }
        });
        while !moving.is_finished() {
            let found = handles.last().unwrap().find(&digests).await.unwrap();
            assert_eq!(found.expect("one of the digests is stored").key.id, issued.key.id);
        }
        moving.await.unwrap();
    })
    .await;
}

/// Polls a future at most `polls` times, then drops it. Returns whether it was ready.
pub async fn poll_and_drop<T>(future: impl Future<Output = T>, polls: usize) -> bool {
    let mut future = Box::pin(future);
    for _ in 0..polls {
        let ready =
            std::future::poll_fn(|cx| std::task::Poll::Ready(future.as_mut().poll(cx))).await;
        if ready.is_ready() {
            return true;
        }
        tokio::task::yield_now().await;
    }
    false
}

#[tokio::test]
async fn a_dropped_future_leaves_no_partial_change() {
    on_each_store(async |handles| {
        let service = Service::new(handles);
        let (keys, ada, by) = (service.keys(), &service.owner, &service.actor);
        let mut started = 0;
        for polls in 0..40 {
            let id = service.issue().await.key.id;
            started += 1;
            let rename = KeyChange::default().name("renamed").unwrap();
            poll_and_drop(keys.update(ada, id, &rename, by), polls).await;
            poll_and_drop(keys.rotate(ada, id, Rotation::immediate(), by), polls).await;
            poll_and_drop(keys.disable(ada, id, by), polls).await;
            poll_and_drop(keys.revoke(ada, id, "", by), polls).await;
            poll_and_drop(keys.issue(service.new_key(), by), polls).await;
        }
        // A started change completes without its caller. These calls complete after all earlier ones.
        keys.revoke_all(ada, "", by).await.unwrap();
        keys.flush().await.unwrap();
        assert!(started > 0);
        let mut page = Page::first().limit(1_000);
        let mut keys_seen = 0;
        loop {
            let listed = keys.list(ada, page).await.unwrap();
            for key in &listed.keys {
                keys_seen += 1;
                let trail = keys.events(AuditQuery::new(ada).key(key.id)).await.unwrap();
                let count = |kind| trail.iter().filter(|event| event.kind == kind).count();
                assert_eq!(count(EventKind::Created), 1);
                let whole = count(EventKind::Updated)
                    + count(EventKind::Rotated)
                    + count(EventKind::Disabled)
                    + count(EventKind::Revoked);
                assert_eq!(key.revision, whole as u64, "each change has its event");
                assert_eq!(count(EventKind::Updated) == 1, key.name.as_str() == "renamed");
                assert_eq!(count(EventKind::Rotated) == 1, key.rotated_at.is_some());
                assert_eq!(count(EventKind::Disabled) == 1, key.disabled_at.is_some());
                assert_eq!(count(EventKind::Revoked) == 1, key.revoked.is_some());
            }
            match listed.next {
                Some(next) => page = page.after(next),
                None => break,
            }
        }
        assert!(keys_seen >= started);
    })
    .await;
}
