//! Whole verifications against the access decision as the documentation states it.

use std::{net::IpAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use keyward::{
    Access, Account, Key, KeyId, Limits, Owner, SecretDigest, Timestamp, VerifyRequest,
    model::{KeyLimits, Metadata, Name, Networks, Permissions, Quota, Rate, Revocation, Status},
    store::FoundKey,
    verify::{CacheOptions, DeniedReason},
};
use proptest::{option, prelude::*, sample::subsequence};

use crate::{
    store::sabotage::wrapper::{Inner, Sabotage, Sabotaged, StoreResult},
    support::{SECOND, Service, format, reason},
};

/// A store in which every secret is one of the same key.
struct OneKey(FoundKey);

#[async_trait]
impl Sabotage for OneKey {
    async fn find(&self, _: &Inner, digests: &[SecretDigest]) -> StoreResult<Option<FoundKey>> {
        Ok(Some(FoundKey { digest: digests[0], ..self.0.clone() }))
    }
}

/// What a request asks for.
#[derive(Debug)]
struct Request {
    tenant: Option<&'static str>,
    ip: Option<IpAddr>,
    scopes: Vec<&'static str>,
    any_scope: Vec<&'static str>,
}

/// The decision from the whole record, without anything precomputed.
fn specification(
    FoundKey { key, ends_at, .. }: &FoundKey,
    account: &Account,
    request: &Request,
    now: Timestamp,
) -> Option<DeniedReason> {
    let may = |scope: &&str| key.access.within(&account.permissions).allows(scope);
    let has_scopes = request.scopes.iter().all(may)
        && (request.any_scope.is_empty() || request.any_scope.iter().any(may));
    let reasons = [
        (key.status(now) == Status::Revoked, DeniedReason::Revoked),
        (key.status(now) == Status::Expired, DeniedReason::Expired),
        (key.status(now) == Status::Disabled, DeniedReason::Disabled),
        (ends_at.is_some_and(|end| end <= now), DeniedReason::SecretRetired),
        (account.suspended, DeniedReason::OwnerSuspended),
        (
            request.tenant.is_some_and(|tenant| tenant != key.owner.tenant()),
            DeniedReason::WrongTenant,
        ),
        (!key.networks.allows(request.ip), DeniedReason::NetworkNotAllowed),
        (!has_scopes, DeniedReason::AccessMissing),
    ];
    reasons.into_iter().find(|(applies, _)| *applies).map(|(_, reason)| reason)
}

const SCOPES: [&str; 3] = ["builds:read", "builds:write", "deploy"];
const TENANTS: [&str; 2] = ["acme", "other"];

/// Few, so that equal ones are frequent.
fn instant(n: u32) -> Timestamp {
    let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    start.after(SECOND * n)
}

fn instants() -> impl Strategy<Value = Timestamp> {
    (0..6u32).prop_map(instant)
}

fn permissions() -> impl Strategy<Value = Permissions> {
    option::of(subsequence(&SCOPES[..], 0..=3)).prop_map(|scopes| match scopes {
        None => Permissions::All,
        Some(scopes) => Permissions::only(scopes).unwrap(),
    })
}

fn networks() -> impl Strategy<Value = Networks> {
    option::of(subsequence(&["192.0.2.0/24", "2001:db8::/32"][..], 0..=2))
        .prop_map(|some| some.map_or(Networks::Any, |some| Networks::only(some).unwrap()))
}

fn addresses() -> impl Strategy<Value = Option<IpAddr>> {
    let addresses = ["192.0.2.7", "198.51.100.1", "2001:db8::1", "::ffff:192.0.2.7"];
    option::of((0..addresses.len()).prop_map(move |n| addresses[n].parse().unwrap()))
}

prop_compose! {
    fn keys()(
        tenant in 0..2usize, access in permissions(), networks in networks(), has_rate: bool,
        has_quota: bool, expires_at in option::of(instants()), disabled_at in option::of(instants()),
        revoked_at in option::of(instants()), ends_at in option::of(instants()),
    ) -> FoundKey {
        let rate = has_rate.then(|| Rate::per_second(50));
        let quota = has_quota.then(|| Quota::total(50));
        let key = Key {
            id: KeyId::from_bytes([7; 16]),
            owner: Owner::new(TENANTS[tenant], "ada").unwrap(),
            name: Name::new("ci").unwrap(),
            hint: "lc_a1b2".into(),
            retiring: None,
            access: match access {
                Permissions::All => Access::Inherited,
                Permissions::Only(scopes) => Access::Only(scopes),
            },
            limits: KeyLimits { rate, quota },
            networks,
            metadata: Metadata::default(),
            created_at: instant(0),
            expires_at,
            disabled_at,
            revoked: revoked_at.map(|at| Revocation { at, reason: String::new() }),
            rotated_at: None,
            rotation_token: None,
        issue_token: None,
            first_used_at: None,
        secret_first_used_at: None,
            last_used_at: None,
            last_used_ip: None,
            revision: 0,
        };
        let digest = SecretDigest::from_sha256(&[0; 32]).unwrap();
        FoundKey { key: Arc::new(key), digest, ends_at }
    }
}

prop_compose! {
    fn requests()(
        tenant in option::of(0..2usize), ip in addresses(),
        scopes in subsequence(&SCOPES[..], 0..=2), any_scope in subsequence(&SCOPES[..], 0..=2),
    ) -> Request {
        Request { tenant: tenant.map(|n| TENANTS[n]), ip, scopes, any_scope }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    /// The first verification reads the key, and the second one, which may be later, finds it in the cache if there is
    /// one.
    #[test]
    fn verification_decides_as_the_whole_record(
        found in keys(), permissions in permissions(), suspended: bool, request in requests(),
        first in 0..6u32, later in 0..3u32, cached: bool,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _entered = runtime.enter();
        let account = Account::new(permissions, Limits::default()).suspended(suspended);
        let store = Arc::new(Sabotaged::new(OneKey(found.clone())));
        let service = Service::with(vec![store], |builder| match cached {
            true => builder.cache(CacheOptions::default().max_keys(4).max_staleness(60 * SECOND)),
            false => builder.no_cache(),
        });
        service.host.set(&found.key.owner, |known| *known = account.clone());
        service.clock.set(instant(first));
        let secret = format().generate().unwrap();
        let mut asked = VerifyRequest::new().require(&request.scopes).require_any(&request.any_scope);
        asked = request.tenant.into_iter().fold(asked, VerifyRequest::tenant);
        asked = request.ip.into_iter().fold(asked, VerifyRequest::ip);
        for now in [first, first + later] {
            service.clock.advance(Duration::from_secs((now - first).into()));
            let expected = specification(&found, &account, &request, instant(now));
            let verified = runtime.block_on(service.keys().verify(secret.expose(), &asked));
            prop_assert_eq!(verified.err().map(reason), expected);

            let identified = runtime.block_on(service.keys().identify(secret.expose())).unwrap();
            let of_secret = expected.filter(|reason| matches!(
                reason,
                DeniedReason::Revoked | DeniedReason::Expired | DeniedReason::Disabled
                    | DeniedReason::SecretRetired
            ));
            prop_assert_eq!(identified.unwrap().denied, of_secret);
        }
    }
}
