//! The access decision: whether a known key may do what a request asks for.
//!
//! Every path uses this function: a cache hit, a key that was just read, a key with a quota, a guard inside
//! another guard, introspection, and the leak receiver. A new condition belongs here and nowhere else.

use super::{
    DeniedReason, VerifyRequest,
    facts::{KeyFacts, KeyState},
};
use crate::{accounts::Account, model::Timestamp};

/// Decides whether a request with this key is allowed at `now`. If several reasons to deny apply, the first one in
/// the order of the checks is returned.
///
/// All fields are destructured without `..`, so that a new field does not compile until it is considered here.
#[inline]
pub(crate) fn authorize(
    key: &KeyFacts,
    account: &Account,
    request: &VerifyRequest<'_>,
    now: Timestamp,
) -> Result<(), DeniedReason> {
    let KeyFacts {
        id: _,
        owner,
        created_at: _,
        // Checked by `authorize_secret`.
        state: _,
        expires_at: _,
        secret_ends_at: _,
        access,
        networks,
        // Charged after the decision.
        limits: _,
        metadata: _,
    } = key;
    let Account { permissions, limits: _, suspended } = account;
    let VerifyRequest { tenant, ip, user_agent: _, scopes, any_scope, cost: _, cache_missed: _ } =
        request;

    authorize_secret(key, now)?;
    if *suspended {
        return Err(DeniedReason::OwnerSuspended);
    }
    if tenant.is_some_and(|tenant| tenant != owner.tenant()) {
        return Err(DeniedReason::WrongTenant);
    }
    if !networks.allows(*ip) {
        return Err(DeniedReason::NetworkNotAllowed);
    }
    let allows = |scope: &&str| access.allows(scope, permissions);
    if !scopes.iter().all(allows) || !any_scope.is_empty() && !any_scope.iter().any(allows) {
        return Err(DeniedReason::AccessMissing);
    }
    Ok(())
}

/// Decides whether the secret is that of a live key at `now`, whatever it is used for: the part of [`authorize`] that
/// needs neither the owner's account nor a request.
#[inline]
pub(crate) fn authorize_secret(key: &KeyFacts, now: Timestamp) -> Result<(), DeniedReason> {
    match key.state {
        KeyState::Revoked => Err(DeniedReason::Revoked),
        _ if now >= key.expires_at => Err(DeniedReason::Expired),
        KeyState::Disabled => Err(DeniedReason::Disabled),
        KeyState::Enabled if now >= key.secret_ends_at => Err(DeniedReason::SecretRetired),
        KeyState::Enabled => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::{net::IpAddr, sync::Arc};

    use proptest::{option, prelude::*, sample::subsequence};

    use super::*;
    use crate::{
        model::{
            Access, Key, KeyId, KeyLimits, Limits, Metadata, Name, Networks, Owner, Permissions,
            Rate, Revocation, Status,
        },
        secret::SecretDigest,
        store::FoundKey,
        verify::facts::Interner,
    };

    /// The decision as the documentation states it, from the whole record and without anything precomputed.
    fn specification(
        FoundKey { key, ends_at, .. }: &FoundKey,
        account: &Account,
        request: &VerifyRequest<'_>,
        now: Timestamp,
    ) -> Result<(), DeniedReason> {
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
        let first = reasons.into_iter().find(|(applies, _)| *applies);
        first.map_or(Ok(()), |(_, reason)| Err(reason))
    }

    const SCOPES: [&str; 3] = ["builds:read", "builds:write", "deploy"];
    const TENANTS: [&str; 2] = ["acme", "other"];

    fn instants() -> impl Strategy<Value = Timestamp> {
        // Few, so that equal ones are frequent.
        (0..6i64).prop_map(|n| Timestamp::from_unix_micros(1_000_000 * n))
    }

    fn permissions() -> impl Strategy<Value = Permissions> {
        option::of(subsequence(&SCOPES[..], 0..=3)).prop_map(|scopes| match scopes {
            None => Permissions::All,
            Some(scopes) => Permissions::only(scopes).unwrap(),
        })
    }

    fn networks() -> impl Strategy<Value = Networks> {
        option::of(subsequence(&["192.0.2.0/24", "2001:db8::/32"][..], 0..=2)).prop_map(
            |networks| networks.map_or(Networks::Any, |networks| Networks::only(networks).unwrap()),
        )
    }

    fn addresses() -> impl Strategy<Value = Option<IpAddr>> {
        let addresses = ["192.0.2.7", "198.51.100.1", "2001:db8::1", "::ffff:192.0.2.7"];
        option::of((0..addresses.len()).prop_map(move |n| addresses[n].parse().unwrap()))
    }

    prop_compose! {
        fn keys()(
            tenant in 0..2usize, access in permissions(), networks in networks(), limited: bool,
            expires_at in option::of(instants()), disabled_at in option::of(instants()),
            revoked_at in option::of(instants()), ends_at in option::of(instants()),
        ) -> FoundKey {
            let rate = limited.then(|| Rate::per_second(5));
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
                limits: KeyLimits { rate, quota: None },
                networks,
                metadata: Metadata::default(),
                created_at: Timestamp::MIN,
                expires_at,
                disabled_at,
                revoked: revoked_at.map(|at| Revocation { at, reason: String::new() }),
                rotated_at: None,
                rotation_token: None,
                first_used_at: None,
                last_used_at: None,
                last_used_ip: None,
                revision: 0,
            };
            FoundKey { key: Arc::new(key), digest: SecretDigest::nothing(), ends_at }
        }
    }

    prop_compose! {
        fn accounts()(permissions in permissions(), suspended: bool) -> Account {
            Account { permissions, limits: Limits::default(), suspended }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        #[test]
        fn what_verification_keeps_of_a_key_decides_as_the_whole_record(
            found in keys(), account in accounts(), now in instants(), ip in addresses(),
            tenant in option::of(0..2usize), scopes in subsequence(&SCOPES[..], 0..=2),
            any_scope in subsequence(&SCOPES[..], 0..=2),
        ) {
            let request = VerifyRequest {
                tenant: tenant.map(|n| TENANTS[n]),
                ip,
                scopes: &scopes,
                any_scope: &any_scope,
                ..VerifyRequest::new()
            };
            let facts = KeyFacts::new(&found, &Interner::default());
            let expected = specification(&found, &account, &request, now);
            prop_assert_eq!(authorize(&facts, &account, &request, now), expected);
            let secret = authorize_secret(&facts, now);
            prop_assert_eq!(secret.is_ok(), !matches!(expected, Err(
                DeniedReason::Revoked | DeniedReason::Expired | DeniedReason::Disabled
                | DeniedReason::SecretRetired
            )));
        }
    }
}
