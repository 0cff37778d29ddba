//! Changes are on disk before they are acknowledged, whatever the database's own settings.

use keyward::manage::{KeyChange, Rotation};
use sqlx::postgres::PgPoolOptions;

use super::{connect, patient};
use crate::support::{Service, servers::postgres, stores};

/// A database that records the setting with which each change ran.
async fn witnessed(setting: &str) -> Option<(postgres::Database, Service)> {
    let database = stores::postgres().await?;
    let name = database.name();
    let witness = format!(
        "CREATE TABLE witness (setting text); \
         CREATE FUNCTION witness() RETURNS trigger LANGUAGE plpgsql \
         AS 'BEGIN INSERT INTO witness VALUES (current_setting(''synchronous_commit'')); RETURN NULL; END'; \
         CREATE TRIGGER a AFTER INSERT OR UPDATE OR DELETE ON keyward_keys \
         FOR EACH ROW EXECUTE FUNCTION witness(); \
         CREATE TRIGGER a AFTER INSERT OR UPDATE OR DELETE ON keyward_secrets \
         FOR EACH ROW EXECUTE FUNCTION witness(); \
         CREATE TRIGGER a AFTER INSERT OR DELETE ON keyward_audit \
         FOR EACH ROW EXECUTE FUNCTION witness(); \
         ALTER DATABASE \"{name}\" SET synchronous_commit = {setting}"
    );
    database.sql(&witness).unwrap();
    let service = Service::uncached(vec![connect(patient(), database.url()).await]);
    Some((database, service))
}

/// Makes every kind of write.
async fn live(service: &Service) {
    let (keys, ada, by) = (service.keys(), &service.owner, &service.actor);
    let issued = service.issue().await;
    service.verify(&issued).await.unwrap();
    keys.flush().await.unwrap();
    let change = KeyChange::default().name("other").unwrap();
    keys.update(ada, issued.key.id, &change, by).await.unwrap();
    let _ = keys.rotate(ada, issued.key.id, Rotation::immediate(), by).await.unwrap();
    keys.revoke(ada, issued.key.id, "lost", by).await.unwrap();
    let _ = service.issue().await;
    keys.revoke_all(ada, "gone", by).await.unwrap();
    keys.delete(ada, issued.key.id, by).await.unwrap();
}

#[tokio::test]
async fn changes_wait_for_the_disk_although_the_database_does_not() {
    for setting in ["off", "local", "remote_write", "on"] {
        let Some((database, service)) = witnessed(setting).await else { return };
        live(&service).await;
        let seen = database.sql("SELECT DISTINCT setting FROM witness").unwrap();
        assert_eq!(seen, "on", "the database has {setting}");
        let pool = PgPoolOptions::new().connect(database.url()).await.unwrap();
        let host: String =
            sqlx::query_scalar("SHOW synchronous_commit").fetch_one(&pool).await.unwrap();
        assert_eq!(host, setting, "the service's own transactions keep it");
    }
}

#[tokio::test]
async fn changes_keep_a_stricter_setting() {
    let Some((database, service)) = witnessed("remote_apply").await else { return };
    live(&service).await;
    let seen = database.sql("SELECT DISTINCT setting FROM witness").unwrap();
    assert_eq!(seen, "remote_apply");
}
