//! A team with the roles of Lumio's page. Each member has keys.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use keyward::{
    Access, Account, Accounts, Actor, ErrorKind, KeyId, Limits, NewKey, Owner, VerifyRequest,
    accounts::{AccountsError, Roles},
    manage::{Issued, KeyChange},
    model::Permissions,
};

use crate::support::{MICRO, Service, on_each_store, owner, reason, stores};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Role {
    Owner,
    Admin,
    Member,
}

/// > Role: Can deploy, Can publish, Can manage billing, Can invite members.
const MATRIX: [(Role, [bool; 4]); 3] = [
    (Role::Owner, [true, true, true, true]),
    (Role::Admin, [true, true, false, true]),
    (Role::Member, [true, false, false, false]),
];

const SCOPES: [&str; 4] = ["deploy", "publish", "billing", "invite"];

fn roles() -> Roles<Role> {
    Roles::new()
        .role(Role::Owner, Permissions::All)
        .role(Role::Admin, Permissions::only(["deploy", "publish", "invite"]).unwrap())
        .role(Role::Member, Permissions::only(["deploy"]).unwrap())
}

#[derive(Clone)]
struct Team {
    roles: Roles<Role>,
    members: Arc<Mutex<HashMap<Owner, Role>>>,
}

impl Team {
    fn new() -> Self {
        Self { roles: roles(), members: Arc::default() }
    }

    fn has(&self, member: &Owner, role: Role) {
        self.members.lock().unwrap().insert(member.clone(), role);
    }

    fn loses(&self, member: &Owner) {
        self.members.lock().unwrap().remove(member);
    }
}

#[async_trait::async_trait]
impl Accounts for Team {
    async fn account(&self, owner: &Owner) -> Result<Arc<Account>, AccountsError> {
        let role = self.members.lock().unwrap().get(owner).copied();
        Ok(Arc::new(self.roles.account(&role, Limits::default())))
    }
}

fn service(handles: stores::Handles) -> (Service, Team) {
    let team = Team::new();
    let service = Service::with(handles, |builder| builder.accounts(team.clone()));
    team.has(&service.owner, Role::Admin);
    (service, team)
}

/// Returns the outcome of a request for each scope.
async fn outcomes(node: &keyward::ApiKeys, issued: &Issued) -> [&'static str; 4] {
    let mut answers = [""; 4];
    for (answer, scope) in answers.iter_mut().zip(SCOPES) {
        let request = VerifyRequest::new();
        *answer = match node.verify(issued.secret.expose(), &request.require(&[scope])).await {
            Ok(_) => "ok",
            Err(error) => reason(error).as_str(),
        };
    }
    answers
}

const NO: &str = "access_missing";
/// The default staleness bound.
const BOUND: Duration = Duration::from_secs(5);

/// > All API keys inherit the permissions of the account that created them.
#[tokio::test]
async fn each_role_has_exactly_the_permissions_of_the_page() {
    let (service, team) = service(stores::memory());
    for (role, allowed) in MATRIX {
        let member = owner("acme", &format!("{role:?}"));
        team.has(&member, role);
        let new = NewKey::new(&member, "ci").unwrap();
        let issued = service.keys().issue(new, &service.actor).await.unwrap();
        let expected = allowed.map(|allowed| if allowed { "ok" } else { NO });
        assert_eq!(outcomes(service.keys(), &issued).await, expected, "{role:?}");
    }
}

#[tokio::test]
async fn a_role_change_applies_to_existing_keys_on_every_node() {
    on_each_store(async |handles| {
        let (service, team) = service(handles);
        let (keys, ada) = (service.keys(), &service.owner);
        let inherited = service.issue().await;
        let named = service.issue_with(Access::only(["publish", "deploy"]).unwrap()).await;
        for node in &service.nodes {
            node.catch_up().await.unwrap();
            assert_eq!(outcomes(node, &inherited).await, ["ok", "ok", NO, "ok"]);
            assert_eq!(outcomes(node, &named).await, ["ok", "ok", NO, NO]);
        }
        for (role, first, second) in [
            (Role::Member, ["ok", NO, NO, NO], ["ok", NO, NO, NO]),
            (Role::Owner, ["ok"; 4], ["ok", "ok", NO, NO]),
        ] {
            team.has(ada, role);
            keys.account_changed(ada).await.unwrap();
            for (n, node) in service.nodes.iter().enumerate() {
                if n > 0 {
                    node.catch_up().await.unwrap();
                }
                assert_eq!(outcomes(node, &inherited).await, first, "node {n}: {role:?}");
                assert_eq!(outcomes(node, &named).await, second, "node {n}: {role:?}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_role_change_without_a_notification_applies_within_the_bound() {
    let (service, team) = service(stores::memory());
    let issued = service.issue().await;
    let keys = service.keys();
    assert_eq!(outcomes(keys, &issued).await, ["ok", "ok", NO, "ok"]);
    team.has(&service.owner, Role::Member);
    service.clock.advance(BOUND + MICRO);
    assert_eq!(outcomes(keys, &issued).await, ["ok", NO, NO, NO]);
    team.loses(&service.owner);
    service.clock.advance(BOUND + MICRO);
    assert_eq!(outcomes(keys, &issued).await, ["owner_suspended"; 4]);
}

/// > Rotate API keys immediately when a team member with access to the key leaves.
#[tokio::test]
async fn keys_of_a_removed_member_are_denied_and_revoked_keys_stay_revoked() {
    on_each_store(async |handles| {
        let (service, team) = service(handles);
        let (keys, ada, by) = (service.keys(), &service.owner, &service.actor);
        let issued = service.issue().await;
        assert!(service.verify(&issued).await.is_ok());
        team.loses(ada);
        keys.account_changed(ada).await.unwrap();
        for node in &service.nodes {
            node.catch_up().await.unwrap();
            assert_eq!(outcomes(node, &issued).await, ["owner_suspended"; 4]);
        }
        let refused = keys.issue(service.new_key(), by).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Suspended);

        team.has(ada, Role::Member);
        keys.account_changed(ada).await.unwrap();
        assert_eq!(
            outcomes(keys, &issued).await,
            ["ok", NO, NO, NO],
            "the owner is a member again"
        );
        keys.revoke_all(ada, "removed", by).await.unwrap();
        assert_eq!(outcomes(keys, &issued).await, ["revoked"; 4]);
    })
    .await;
}

#[tokio::test]
async fn an_actor_cannot_grant_more_than_its_role() {
    let (service, team) = service(stores::memory());
    let (keys, ada) = (service.keys(), &service.owner);
    team.has(ada, Role::Member);
    let access = |scope| Access::only([scope]).unwrap();
    let issue = async |new| keys.issue(new, &service.actor).await.map(|issued| issued.key.id);
    let id: KeyId = issue(service.new_key().access(access("deploy"))).await.unwrap();
    let refused = issue(service.new_key().access(access("publish"))).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Forbidden);
    let wider = KeyChange::default().access(access("publish"));
    let refused = keys.update(ada, id, &wider, &service.actor).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Forbidden);

    // An admin's key for the team owner has at most the admin's permissions.
    let boss = owner("acme", "boss");
    team.has(&boss, Role::Owner);
    let admin = Actor::account("eve").limited_to(roles().permissions(&[Role::Admin]));
    let new = |scope| NewKey::new(&boss, "ci").unwrap().access(access(scope));
    assert!(keys.issue(new("invite"), &admin).await.is_ok());
    let refused = keys.issue(new("billing"), &admin).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Forbidden);
}

#[test]
fn several_roles_combine_their_permissions_and_no_role_means_suspended() {
    let only = |scopes: &[&str]| Permissions::only(scopes).unwrap();
    let roles = Roles::new()
        .role("writer", only(&["write", "read"]))
        .role("reader", only(&["read"]))
        .role("reader", only(&["list"]))
        .role("root", Permissions::All);
    for (held, permissions) in [
        (&["reader"][..], only(&["list", "read"])),
        (&["reader", "writer"], only(&["list", "read", "write"])),
        (&["writer", "root"], Permissions::All),
        (&["writer", "unknown role"], only(&["read", "write"])),
    ] {
        assert_eq!(roles.permissions(held), permissions, "{held:?}");
        let account = roles.account(held, Limits::default());
        assert_eq!((account.permissions, account.suspended), (permissions, false), "{held:?}");
    }
    for held in [&[][..], &["unknown role"]] {
        assert_eq!(roles.permissions(held), only(&[]));
        assert!(roles.account(held, Limits::default()).suspended, "{held:?}");
    }
}
