use keyward::{
    MemoryStore, SecretDigest, Timestamp,
    enroll::EnrollError,
    manage::Page,
    store::{CodeAttempt, CodeOutcome, OneTimeCode, OneTimeCodes},
};

use super::support::{EnrollmentHarness, actor_from, ada, ada_actor, wrong};
use crate::support::{on_each_store, stores};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_is_invalid_after_five_wrong_attempts() {
    on_each_store(async |handles| {
        let harness = EnrollmentHarness::new(handles);
        let code = harness.code().await;
        for _ in 0..5 {
            let guess = harness.redeem(&wrong(&code)).await;
            assert!(matches!(guess, Err(EnrollError::WrongCode)), "{guess:?}");
        }
        assert!(
            matches!(harness.redeem(&code).await, Err(EnrollError::WrongCode)),
            "the code is invalid by now"
        );
        let next = harness.code().await;
        for _ in 0..4 {
            assert!(harness.redeem(&wrong(&next)).await.is_err());
            assert!(
                harness.redeem("not a code").await.is_err(),
                "a malformed code uses no attempt"
            );
        }
        assert!(harness.redeem(&next).await.is_ok(), "the fifth attempt");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_64_racing_guesses_five_are_checked() {
    on_each_store(async |handles| {
        let harness = EnrollmentHarness::unlimited(handles);
        let code = harness.code().await;
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..64 {
            let node = harness.nodes[task % harness.nodes.len()].clone();
            let wrong = wrong(&code);
            tasks.spawn(async move {
                node.redeem_code(&ada(), &wrong, &actor_from(&format!("198.51.100.{task}")))
                    .await
                    .is_err()
            });
        }
        assert!(tasks.join_all().await.iter().all(|rejected| *rejected));
        assert_eq!(harness.refused("wrong_code").await, 5);
        assert_eq!(harness.refused("no_tries_left").await, 59);
        let elsewhere = harness.node().redeem_code(&ada(), &code, &actor_from(ELSEWHERE)).await;
        assert!(matches!(elsewhere, Err(EnrollError::WrongCode)), "{elsewhere:?}");
        assert!(harness.redeem(&code).await.is_ok(), "the user's network has its own attempts");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_networks_together_have_ten_guesses_per_code() {
    on_each_store(async |handles| {
        let harness = EnrollmentHarness::new(handles);
        let code = harness.code().await;
        for n in 0..40 {
            let from = actor_from(&format!("198.51.100.{n}"));
            assert!(harness.node().redeem_code(&ada(), &wrong(&code), &from).await.is_err());
        }
        for _ in 0..10 {
            assert!(harness.redeem(&wrong(&code)).await.is_err());
        }
        assert_eq!(harness.refused("wrong_code").await, 10);
        assert!(matches!(harness.redeem(&code).await, Err(EnrollError::WrongCode)));
        // A user that moves to another network shares the attempts of all others.
        let next = harness.code().await;
        let moved = harness.node().redeem_code(&ada(), &next, &actor_from(ELSEWHERE)).await;
        assert!(moved.is_ok(), "{moved:?}");
    })
    .await;
}

#[tokio::test]
async fn the_codes_of_an_hour_allow_fifty_guesses() {
    let harness = EnrollmentHarness::new(stores::memory());
    // Each network requests codes for the same address and guesses, beside networks that only guess.
    for network in 0..20 {
        let attacker = actor_from(&format!("198.51.100.{network}"));
        let code = match harness.node().request_code(&ada(), &attacker).await {
            Ok(()) => harness.message().await.code.expose().to_owned(),
            Err(EnrollError::TooManyAttempts(_)) => "000000".into(),
            Err(error) => panic!("{error:?}"),
        };
        let others = (0..10).map(|n| actor_from(&format!("203.0.113.{n}")));
        for by in others.chain(std::iter::repeat_n(attacker, 10)) {
            assert!(harness.node().redeem_code(&ada(), &wrong(&code), &by).await.is_err());
        }
    }
    assert_eq!(harness.refused("wrong_code").await, 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_from_another_network_keeps_the_code_of_the_user() {
    on_each_store(async |handles| {
        let harness = EnrollmentHarness::new(handles);
        let (first, stranger) = (harness.code().await, actor_from(ELSEWHERE));
        harness.node().request_code(&ada(), &stranger).await.unwrap();
        let second = harness.message().await.code.expose().to_owned();
        assert!(harness.redeem(&first).await.is_ok(), "requested from the same network");
        assert!(harness.redeem(&first).await.is_err(), "it is used up");
        assert!(harness.redeem(&second).await.is_ok(), "the last code, requested from elsewhere");
        assert!(harness.node().redeem_code(&ada(), &second, &stranger).await.is_err());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_racing_correct_codes_from_two_networks_one_issues_a_key() {
    on_each_store(async |handles| {
        for _ in 0..4 {
            let harness = EnrollmentHarness::unlimited(handles.clone());
            let code = harness.code().await;
            let mut tasks = tokio::task::JoinSet::new();
            for task in 0..16 {
                let (node, code) =
                    (harness.nodes[task % harness.nodes.len()].clone(), code.clone());
                let by = if task % 4 < 2 { ada_actor() } else { actor_from(ELSEWHERE) };
                tasks.spawn(async move { node.redeem_code(&ada(), &code, &by).await.is_ok() });
            }
            let issued = tasks.join_all().await.into_iter().filter(|issued| *issued).count();
            assert_eq!(issued, 1);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_64_racing_correct_codes_one_issues_a_key() {
    on_each_store(async |handles| {
        let harness = EnrollmentHarness::unlimited(handles);
        let code = harness.code().await;
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..64 {
            let (node, code) = (harness.nodes[task % harness.nodes.len()].clone(), code.clone());
            tasks.spawn(async move {
                node.redeem_code(&ada(), &code, &actor_from(&format!("198.51.100.{task}")))
                    .await
                    .is_ok()
            });
        }
        let issued = tasks.join_all().await.into_iter().filter(|issued| *issued).count();
        assert_eq!(issued, 1);
        let keys =
            harness.service.keys().list(&harness.service.owner, Page::first()).await.unwrap();
        assert_eq!(keys.keys.len(), 1);
    })
    .await;
}

/// Tries all codes, including the correct one, on the store itself, without hashing or limits.
#[tokio::test]
async fn of_a_million_guesses_five_are_checked() {
    let digest = |n: u32| {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        SecretDigest::from_sha256(&bytes).unwrap()
    };
    let (store, at) = (MemoryStore::new(), Timestamp::MIN);
    let address = digest(u32::MAX);
    for correct in [5, 123_456, 999_999] {
        let code = OneTimeCode { digest: digest(correct), ends_at: Timestamp::MAX, tries: 5 };
        store.put_code(&address, &code).await.unwrap();
        let mut wrong = 0;
        for n in 0..1_000_000 {
            match store.try_code(&CodeAttempt { address, digest: digest(n), at }).await.unwrap() {
                CodeOutcome::Wrong => wrong += 1,
                CodeOutcome::NoTriesLeft => {}
                other => panic!("guess {n} was {other:?}"),
            }
        }
        assert_eq!(wrong, 5);
    }
}

/// Like the previous test through the public API, from changing networks; fewer, because each is hashed.
#[tokio::test]
async fn ten_thousand_guesses_from_different_networks_issue_no_key() {
    let harness = EnrollmentHarness::unlimited(stores::memory());
    let code: u32 = harness.code().await.parse().unwrap();
    for n in 1..=10_000 {
        let guess = format!("{:06}", (code + 1_000_000 - 10_000 + n) % 1_000_000);
        let from = actor_from(&format!("10.0.{}.{}", n / 256, n % 256));
        assert!(harness.node().redeem_code(&ada(), &guess, &from).await.is_err(), "guess {n}");
    }
    assert!(harness.log().await.iter().all(|event| event.kind.as_str() != "key.created"));
}

const ELSEWHERE: &str = "203.0.113.9";
