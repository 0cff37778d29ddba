//! Compares `PostgresStore` with the same SELECT by sqlx alone and by `pgbench`, on a private server.

use std::{fs, pin::Pin, process::Command, sync::Arc};

use keyward::{KeyStore, PostgresStore};
use sqlx::{PgPool, Row, postgres::PgPoolOptions};

use crate::{
    digest,
    measure::{latency, per_key, throughput},
    pick,
    servers::postgres::{Database, Options},
};

pub async fn measure(keys: u64) {
    let server = Options::default().setting("shared_buffers", "1GB").setting("jit", "off");
    let Some(server) = server.start() else { return };
    let database = server.cluster().database();
    let store = Arc::new(PostgresStore::connect(database.url()).await.expect("a new database"));
    fill(&database, keys);
    size(&database, keys);

    let ours = move |n| {
        let store = store.clone();
        async move {
            let found = store.find(&[digest(pick(n, keys))]).await.expect("the server runs");
            assert!(found.is_some());
        }
    };
    let pool = PgPoolOptions::new().max_connections(10).test_before_acquire(false);
    let same_settings = bare(pool.connect(database.url()).await.expect("the server runs"), keys);
    latency("find, sequential", 1.3, ours.clone(), same_settings.clone()).await;
    // The usual configuration: only the size is set.
    let naive = PgPoolOptions::new().max_connections(10).connect(database.url()).await;
    let naive = bare(naive.expect("the server runs"), keys);
    throughput("find by 64 tasks, naive pool", 2.0, ours.clone(), naive).await;
    throughput("find by 64 tasks, same settings", 2.0, ours, same_settings).await;
    pgbench(&database, keys);
}

/// Runs the SELECT of the store and reads one column of the answer.
fn bare(
    pool: PgPool,
    keys: u64,
) -> impl Fn(u64) -> Pin<Box<dyn Future<Output = ()> + Send>> + Clone + Send + Sync + 'static {
    move |n| {
        let pool = pool.clone();
        Box::pin(async move {
            let wanted = digest(pick(n, keys)).to_bytes().to_vec();
            let row = sqlx::query(FIND).bind(wanted).fetch_optional(&pool).await;
            let row = row.expect("the server runs").expect("the key is there");
            assert!(!row.get::<bool, _>("former"));
        })
    }
}

/// Runs the same look-up without Rust: the cost of the server and the socket alone.
fn pgbench(database: &Database, keys: u64) {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let programs = versions.map(|version| version.path().join("bin/pgbench"));
    let Some(program) = programs.filter(|program| program.is_file()).max() else {
        return println!("  pgbench is not installed");
    };
    let script = tempfile::NamedTempFile::new().expect("a temporary file");
    let find = FIND.replace("$1", &DIGEST.replace("{i}", ":i::text"));
    let text = format!("\\set i random(1, {keys})\n{find};\n");
    fs::write(script.path(), text).expect("a temporary file");
    for clients in ["1", "10"] {
        let mut command = Command::new(&program);
        command.args(["-n", "-M", "prepared", "-T", "5", "-c", clients, "-j", clients, "-f"]);
        let output = command.arg(script.path()).arg(database.url()).output().expect("it runs");
        let report = String::from_utf8_lossy(&output.stdout).into_owned();
        for line in report.lines().filter(|l| l.starts_with("latency") || l.starts_with("tps")) {
            println!("  pgbench -M prepared, {clients} clients: {line}");
        }
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

fn fill(database: &Database, keys: u64) {
    let digest = DIGEST.replace("{i}", "i");
    let rows = format!(
        "INSERT INTO keyward_keys (id, tenant, account, name, hint, access, metadata, created_at, \
         revision) SELECT ('0190a5b2-0000-7000-8000-' || lpad(to_hex(i), 12, '0'))::uuid, 'acme', \
         'account' || i, 'ci-pipeline', 'lc_live_a1b2c3d4', '[\"builds:read\"]', '{{}}', 0, 0 \
         FROM generate_series(1, {keys}) i; \
         INSERT INTO keyward_secrets (digest, key_id, former) SELECT {digest}, \
         ('0190a5b2-0000-7000-8000-' || lpad(to_hex(i), 12, '0'))::uuid, false \
         FROM generate_series(1, {keys}) i"
    );
    database.sql(&rows).expect("there is room");
    database.sql("VACUUM (ANALYZE)").expect("no other connection is open");
}

fn size(database: &Database, keys: u64) {
    let size = "SELECT sum(pg_total_relation_size(oid)) FROM pg_class \
        WHERE relname IN ('keyward_keys', 'keyward_secrets')";
    let size = database.sql(size).expect("the tables are there");
    per_key("disk, with indexes", size.parse().expect("a number"), keys);
}

const FIND: &str = "SELECT k.*, s.digest, s.former FROM keyward_secrets s \
    JOIN keyward_keys k ON k.id = s.key_id WHERE s.digest = $1";
const DIGEST: &str = r"('\x010000'::bytea || sha256(('secret' || {i})::bytea))";
