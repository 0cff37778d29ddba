use keyward::{
    KeyStore, MemoryStore, SecretDigest, Timestamp,
    enroll::EnrollError,
    manage::Page,
    store::{CodeAttempt, CodeOutcome, OneTimeCode},
};

use super::support::{Office, ada, from, wrong};
use crate::support::{on_each_store, stores};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_wrong_codes_are_the_end_of_a_code() {
    on_each_store(async |handles| {
        let office = Office::new(handles);
        let code = office.code().await;
        for _ in 0..5 {
            let guess = office.present(&wrong(&code)).await;
            assert!(matches!(guess, Err(EnrollError::WrongCode)), "{guess:?}");
        }
        assert!(matches!(office.present(&code).await, Err(EnrollError::WrongCode)), "too late");
        let next = office.code().await;
        for _ in 0..4 {
            assert!(office.present(&wrong(&next)).await.is_err());
            assert!(office.present("a slip").await.is_err(), "what is no code takes no try");
        }
        assert!(office.present(&next).await.is_ok(), "with the fifth try");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_racing_guesses_five_count() {
    on_each_store(async |handles| {
        let office = Office::unlimited(handles);
        let code = office.code().await;
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..64 {
            let node = office.nodes[task % office.nodes.len()].clone();
            let wrong = wrong(&code);
            tasks.spawn(async move {
                node.redeem_code(&ada(), &wrong, &from(&format!("198.51.100.{task}")))
                    .await
                    .is_err()
            });
        }
        assert!(tasks.join_all().await.iter().all(|refused| *refused));
        let total = |reason| {
            let log = office.log();
            async move {
                let of = log.await.into_iter();
                of.filter(|event| event.reason.as_deref() == Some(reason))
                    .map(|event| event.count)
                    .sum::<u32>()
            }
        };
        assert_eq!(total("wrong_code").await, 5);
        assert_eq!(total("no_tries_left").await, 59);
        assert!(office.present(&code).await.is_err());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_racing_right_codes_one_makes_a_key() {
    on_each_store(async |handles| {
        let office = Office::unlimited(handles);
        let code = office.code().await;
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..64 {
            let (node, code) = (office.nodes[task % office.nodes.len()].clone(), code.clone());
            tasks.spawn(async move {
                node.redeem_code(&ada(), &code, &from(&format!("198.51.100.{task}"))).await.is_ok()
            });
        }
        let made = tasks.join_all().await.into_iter().filter(|made| *made).count();
        assert_eq!(made, 1);
        let keys = office.service.keys().list(&office.service.owner, Page::first()).await.unwrap();
        assert_eq!(keys.keys.len(), 1);
    })
    .await;
}

/// All codes there are, the right one among them. On the store itself, without hashing or limits.
#[tokio::test]
async fn a_million_guesses_get_five_tries() {
    let digest = |n: u32| {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        SecretDigest::from_sha256(&bytes).unwrap()
    };
    let (store, at) = (MemoryStore::new(), Timestamp::MIN);
    let address = digest(u32::MAX);
    for right in [5, 123_456, 999_999] {
        let code = OneTimeCode { digest: digest(right), ends_at: Timestamp::MAX, tries: 5 };
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

/// The same through the front door, from ever other networks; fewer, because each is hashed.
#[tokio::test]
async fn ten_thousand_guesses_from_everywhere_make_no_key() {
    let office = Office::unlimited(stores::memory());
    let code: u32 = office.code().await.parse().unwrap();
    for n in 1..=10_000 {
        let guess = format!("{:06}", (code + 1_000_000 - 10_000 + n) % 1_000_000);
        let from = from(&format!("10.0.{}.{}", n / 256, n % 256));
        assert!(office.any().redeem_code(&ada(), &guess, &from).await.is_err(), "guess {n}");
    }
    assert!(office.log().await.iter().all(|event| event.kind.as_str() != "key.created"));
}
