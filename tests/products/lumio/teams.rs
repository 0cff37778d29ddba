//! Teams. Each member has their own keys.

use serde_json::{Value, json};

use super::{
    ADA, ADMIN, BOB, Deployment, KEYS, MEMBER, OWNER, TEAM, change_role, invite, present, remove,
};
use crate::products::backend::{Backend, on_each_backend};
use crate::support::servers::eventually;

/// > Role: Can deploy, Can publish, Can manage billing, Can invite members. Owner: Yes, Yes, Yes, Yes.
/// > Admin: Yes, Yes, No, Yes. Member: Yes, No, No, No.
/// > Multiple developers can collaborate on an extension via the team feature. Go to Account → Team to
/// > invite members.
async fn each_role_has_its_documented_permissions_in_sessions_and_keys(backend: &Backend) {
    let lumio = Deployment::new(backend).server();
    let ada = lumio.sign_up(ADA).await;
    for (n, (role, permissions, may_invite)) in
        [("owner", OWNER, true), ("admin", ADMIN, true), ("member", MEMBER, false)]
            .into_iter()
            .enumerate()
    {
        let person = invite(&lumio, &ada, &format!("{role}@example.com"), role).await;
        let key = present(&lumio.create(&person, "ci").await);
        for pass in [&person, &key] {
            assert_eq!(lumio.permissions(pass).await, permissions, "{role} by {}", pass.0);
        }
        let guest = json!({ "email": format!("guest{n}@example.com"), "role": "member" });
        let status = if may_invite { 201 } else { 403 };
        assert_eq!(lumio.post(TEAM, &person, guest.clone()).await.0, status, "{role}");
        assert_eq!(lumio.post(TEAM, &key, guest).await.0, 401, "a key manages no team");
    }
    let (_, deployed) = lumio.post("/extensions/weather/deploy", &ada, Value::Null).await;
    let admin = lumio.sign_in("admin@example.com").await;
    let (_, by_admin) = lumio.post("/extensions/weather/deploy", &admin, Value::Null).await;
    assert_eq!(deployed["team"].as_str().unwrap(), by_admin["team"]);
    let members = lumio.get(TEAM, &lumio.sign_in("member@example.com").await).await;
    assert_eq!(members["members"].as_array().unwrap().len(), 6, "{members}");
}

/// Not on the page: members cannot grant a role above their own, change other teams, or take over an account.
async fn members_cannot_grant_a_role_above_their_own_or_change_another_team(backend: &Backend) {
    let lumio = Deployment::new(backend).server();
    let ada = lumio.sign_up(ADA).await;
    let admin = invite(&lumio, &ada, "admin@example.com", "admin").await;
    let bob = invite(&lumio, &ada, BOB, "member").await;
    let eve = lumio.sign_up("eve@example.com").await;
    let to_owner = json!({ "email": "x@example.com", "role": "owner" });
    assert_eq!(lumio.post(TEAM, &admin, to_owner).await.0, 403);
    for (by, email, role, status) in [
        (&admin, BOB, "owner", 403),
        (&admin, ADA, "member", 403),
        (&admin, "admin@example.com", "owner", 403),
        (&ada, ADA, "member", 404),
        (&bob, BOB, "admin", 403),
        (&eve, BOB, "member", 404),
        (&admin, "eve@example.com", "member", 404),
        (&admin, "nobody@example.com", "member", 404),
        (&admin, BOB, "admin", 204),
    ] {
        assert_eq!(change_role(&lumio, by, email, role).await, status, "{email} {role}");
    }
    for (by, email, status) in
        [(&admin, ADA, 403), (&admin, "eve@example.com", 404), (&eve, BOB, 404), (&ada, ADA, 404)]
    {
        assert_eq!(remove(&lumio, by, email).await, status, "{email}");
    }
    let taken = json!({ "email": "eve@example.com", "role": "member" });
    assert_eq!(lumio.post(TEAM, &ada, taken).await.0, 409);
    assert_eq!(lumio.permissions(&ada).await, OWNER);
    assert_eq!(lumio.permissions(&bob).await, ADMIN);
}

/// > Each team member authenticates with their own credentials — shared passwords or shared API keys are
/// > not needed or recommended.
/// > Rotate API keys … immediately when: A team member with access to the key leaves
async fn existing_keys_lose_permissions_when_the_members_role_is_reduced_or_removed(
    backend: &Backend,
) {
    let deployment = Deployment::new(backend);
    let [here, elsewhere] = [deployment.server(), deployment.server()];
    let ada = here.sign_up(ADA).await;
    let bob = invite(&here, &ada, BOB, "admin").await;
    let [own, key] = [(&ada, "hers"), (&bob, "his")].map(|(by, label)| here.create(by, label));
    let [own, key] = [present(&own.await), present(&key.await)];
    for lumio in [&here, &elsewhere] {
        assert_eq!(lumio.permissions(&key).await, ADMIN);
    }
    assert_eq!(change_role(&here, &ada, BOB, "member").await, 204);
    assert_eq!(here.permissions(&key).await, MEMBER, "immediately on this server");
    eventually("the other region to apply the change", async || {
        elsewhere.permissions(&key).await == MEMBER
    })
    .await;
    assert_eq!(remove(&here, &ada, BOB).await, 204);
    assert_eq!(here.deploy(&key).await, 401);
    assert_eq!(here.deploy(&bob).await, 401, "nor in the session");
    eventually("the other region to apply the change", async || {
        elsewhere.deploy(&key).await == 401
    })
    .await;
    for lumio in [&here, &elsewhere] {
        assert_eq!(lumio.permissions(&own).await, OWNER, "other members' keys are unaffected");
    }
    here.sign_up(BOB).await;
    // A new server with an empty cache.
    let fresh = deployment.server();
    for former in [&key, &bob] {
        assert_eq!(
            fresh.deploy(former).await,
            401,
            "old credentials stay invalid for a new account"
        );
    }
}

/// > If you need limited access for a specific use case, create a separate developer sub-account (see
/// > Teams).
async fn a_sub_account_has_keys_with_limited_access(backend: &Backend) {
    let lumio = Deployment::new(backend).server();
    let ada = lumio.sign_up(ADA).await;
    let robot = invite(&lumio, &ada, "ada+ci@example.com", "member").await;
    let [full, limited] = [lumio.create(&ada, "mine").await, lumio.create(&robot, "ci").await];
    assert_eq!(lumio.permissions(&present(&full)).await, OWNER);
    assert_eq!(lumio.permissions(&present(&limited)).await, MEMBER);
    let deployed =
        async |key| lumio.post("/extensions/weather/deploy", &present(key), json!(0)).await;
    assert_eq!(deployed(&full).await, deployed(&limited).await, "in the same team");
    assert_eq!(remove(&lumio, &ada, "ada+ci@example.com").await, 204);
    assert_eq!(lumio.deploy(&present(&limited)).await, 401);
    assert_eq!(lumio.permissions(&present(&full)).await, OWNER);
}

/// Not on the page: a removed founder cannot rejoin the team with the same address.
async fn a_removed_member_who_signs_up_again_gets_a_new_account_and_team(backend: &Backend) {
    let lumio = Deployment::new(backend).server();
    let ada = lumio.sign_up(ADA).await;
    lumio.create(&ada, "hers").await;
    let bob = invite(&lumio, &ada, BOB, "owner").await;
    assert_eq!(remove(&lumio, &bob, ADA).await, 204);
    let again = lumio.sign_up(ADA).await;
    for (by, email) in [(&bob, BOB), (&again, ADA)] {
        let members = lumio.get(TEAM, by).await["members"].take();
        assert_eq!(members, json!([{ "email": email, "role": "owner" }]));
    }
    assert_eq!(lumio.get(KEYS, &again).await["keys"], json!([]));
    assert_eq!(lumio.log(&again).await.len(), 1, "that she has signed in");
    assert_eq!(remove(&lumio, &again, BOB).await, 404);
}

on_each_backend!([sqlite, postgres_and_redis] {
    existing_keys_lose_permissions_when_the_members_role_is_reduced_or_removed,
    each_role_has_its_documented_permissions_in_sessions_and_keys,
    members_cannot_grant_a_role_above_their_own_or_change_another_team,
    a_sub_account_has_keys_with_limited_access,
    a_removed_member_who_signs_up_again_gets_a_new_account_and_team,
});
