//! The stories of this crate.

use crate::{AgentRow, FILE, KeyRow, KeyUse, RevokedToken, Store, StoreFault, open::MIGRATIONS};
use sqlx::{ConnectOptions, Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use std::{fs, os::unix::fs::PermissionsExt, path::Path};
use tempfile::TempDir;
use vocab::{AgentId, Digest, TenantId, Timestamp};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(seconds)
}

fn agent(name: &str) -> AgentId {
    AgentId::new(name).unwrap()
}

fn key(id: &str, opens: KeyUse) -> KeyRow {
    KeyRow {
        id: id.to_owned(),
        hash: Digest::of(id.as_bytes()),
        tenant: TenantId::default_tenant(),
        opens,
        label: "laptop".to_owned(),
        created: at(1),
        expires: Some(at(100)),
        revoked: None,
    }
}

async fn raw(directory: &Path) -> SqliteConnection {
    let file = directory.join(FILE);
    SqliteConnectOptions::new().filename(file).create_if_missing(true).connect().await.unwrap()
}

#[tokio::test]
async fn keys_survive_a_restart_and_are_revoked_singly() {
    let directory = TempDir::new().unwrap();
    let store = Store::open(directory.path()).await.unwrap();
    let (ci, admin) = (key("aaaaaaaa", KeyUse::Agent(agent("ci"))), key("bbbbbbbb", KeyUse::Admin("owner".to_owned())));
    store.add_key(&ci).await.unwrap();
    store.add_key(&admin).await.unwrap();
    assert!(matches!(store.add_key(&ci).await, Err(StoreFault::Duplicate)));
    store.close().await;

    let store = Store::open(directory.path()).await.unwrap();
    assert_eq!(store.keys().await.unwrap(), [ci.clone(), admin.clone()]);
    assert!(store.revoke_key("aaaaaaaa", at(5)).await.unwrap());
    assert!(!store.revoke_key("aaaaaaaa", at(6)).await.unwrap(), "the first time counts");
    assert!(!store.revoke_key("cccccccc", at(5)).await.unwrap());
    assert!(store.expire_key("bbbbbbbb", at(50)).await.unwrap());
    assert_eq!(store.key("aaaaaaaa").await.unwrap(), Some(KeyRow { revoked: Some(at(5)), ..ci }));
    assert_eq!(store.key("bbbbbbbb").await.unwrap(), Some(KeyRow { expires: Some(at(50)), ..admin }));
    assert_eq!(store.key("cccccccc").await.unwrap(), None);
}

#[tokio::test]
async fn all_keys_of_one_agent_go_and_no_others() {
    let directory = TempDir::new().unwrap();
    let store = Store::open(directory.path()).await.unwrap();
    for (id, opens) in [
        ("aaaaaaaa", KeyUse::Agent(agent("ci"))),
        ("bbbbbbbb", KeyUse::Agent(agent("ci"))),
        ("cccccccc", KeyUse::Agent(agent("ci2"))),
        ("dddddddd", KeyUse::Admin("ci".to_owned())),
    ] {
        store.add_key(&key(id, opens)).await.unwrap();
    }
    store.revoke_key("bbbbbbbb", at(2)).await.unwrap();
    let tenant = TenantId::default_tenant();
    assert_eq!(store.revoke_keys_of(&tenant, &agent("ci"), at(9)).await.unwrap(), ["aaaaaaaa"]);
    let other = TenantId::new("other").unwrap();
    assert!(store.revoke_keys_of(&other, &agent("ci2"), at(9)).await.unwrap().is_empty());
    let live: Vec<String> =
        store.keys().await.unwrap().into_iter().filter(|key| key.revoked.is_none()).map(|key| key.id).collect();
    assert_eq!(live, ["cccccccc", "dddddddd"]);
}

#[tokio::test]
async fn an_agent_is_switched_off_and_on() {
    let directory = TempDir::new().unwrap();
    let store = Store::open(directory.path()).await.unwrap();
    let tenant = TenantId::default_tenant();
    store.disable_agent(&tenant, &agent("ci"), "leaked key", at(3)).await.unwrap();
    store.disable_agent(&tenant, &agent("ci"), "again", at(4)).await.unwrap();
    let off = AgentRow {
        tenant: tenant.clone(),
        agent: agent("ci"),
        disabled: Some(at(3)),
        reason: Some("leaked key".to_owned()),
    };
    assert_eq!(store.agents().await.unwrap(), std::slice::from_ref(&off));
    assert!(store.enable_agent(&tenant, &agent("ci")).await.unwrap());
    assert!(!store.enable_agent(&tenant, &agent("ci")).await.unwrap());
    assert_eq!(store.agents().await.unwrap(), [AgentRow { disabled: None, reason: None, ..off }]);
}

#[tokio::test]
async fn a_revoked_token_is_remembered_until_it_expires() {
    let directory = TempDir::new().unwrap();
    let store = Store::open(directory.path()).await.unwrap();
    let token = RevokedToken { hash: Digest::of(b"token"), until: at(100) };
    store.revoke_token(token, at(1)).await.unwrap();
    store.revoke_token(RevokedToken { until: at(50), ..token }, at(2)).await.unwrap();
    assert_eq!(store.revoked_tokens(at(99)).await.unwrap(), [token]);
    assert!(store.revoked_tokens(at(100)).await.unwrap().is_empty());
    assert_eq!(store.forget_expired_tokens(at(99)).await.unwrap(), 0);
    assert_eq!(store.forget_expired_tokens(at(100)).await.unwrap(), 1);
}

#[tokio::test]
async fn only_the_owner_reads_the_files() {
    let directory = TempDir::new().unwrap();
    let store = Store::open(directory.path()).await.unwrap();
    store.add_key(&key("aaaaaaaa", KeyUse::Agent(agent("ci")))).await.unwrap();
    let mut files = 0;
    for file in fs::read_dir(directory.path()).unwrap() {
        let file = file.unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{}", file.path().display());
        files += 1;
    }
    assert!(files >= 2, "the write-ahead log is a file too");
    store.close().await;
    fs::set_permissions(store.path(), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(Store::open(directory.path()).await, Err(StoreFault::Mode { mode: 0o644, .. })));
}

#[tokio::test]
async fn an_older_directory_is_copied_and_migrated() {
    let directory = TempDir::new().unwrap();
    let mut connection = raw(directory.path()).await;
    MIGRATIONS.run_to(1, &mut connection).await.unwrap();
    sqlx::query("INSERT INTO agents VALUES ('default', 'ci', 7, 'why')").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    fs::set_permissions(directory.path().join(FILE), fs::Permissions::from_mode(0o600)).unwrap();

    let store = Store::open(directory.path()).await.unwrap();
    assert_eq!(store.agents().await.unwrap().len(), 1);
    assert!(store.revoked_tokens(at(0)).await.unwrap().is_empty());
    let backup = directory.path().join("durward.db.format-1");
    assert_eq!(fs::metadata(&backup).unwrap().permissions().mode() & 0o777, 0o600);
    store.close().await;

    let before = TempDir::new().unwrap();
    fs::copy(&backup, before.path().join(FILE)).unwrap();
    let mut connection = raw(before.path()).await;
    let tables: Vec<String> = sqlx::query_scalar("SELECT name FROM sqlite_master WHERE type = 'table'")
        .fetch_all(&mut connection)
        .await
        .unwrap();
    assert!(tables.contains(&"agents".to_owned()) && !tables.contains(&"revoked_tokens".to_owned()));

    assert!(Store::open(directory.path()).await.is_ok(), "the second start has nothing to migrate");
}

#[tokio::test]
async fn a_backup_is_never_overwritten() {
    let directory = TempDir::new().unwrap();
    let mut connection = raw(directory.path()).await;
    MIGRATIONS.run_to(1, &mut connection).await.unwrap();
    connection.close().await.unwrap();
    fs::set_permissions(directory.path().join(FILE), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(directory.path().join("durward.db.format-1"), "precious").unwrap();
    assert!(matches!(Store::open(directory.path()).await, Err(StoreFault::BackupExists { .. })));
}

#[tokio::test]
async fn a_newer_directory_is_refused() {
    let directory = TempDir::new().unwrap();
    Store::open(directory.path()).await.unwrap().close().await;
    let mut connection = raw(directory.path()).await;
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (99, 'future', 1, x'00', 0)",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    connection.close().await.unwrap();

    let fault = Store::open(directory.path()).await.unwrap_err();
    assert!(matches!(&fault, StoreFault::Newer { found: 99, known, .. } if *known == Store::format()), "{fault:?}");
}

#[tokio::test]
async fn a_backup_holds_the_rows() {
    let (directory, elsewhere) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let store = Store::open(directory.path()).await.unwrap();
    let row = key("aaaaaaaa", KeyUse::Agent(agent("ci")));
    store.add_key(&row).await.unwrap();
    store.backup(&elsewhere.path().join(FILE)).await.unwrap();
    assert_eq!(Store::open(elsewhere.path()).await.unwrap().keys().await.unwrap(), [row]);
    assert!(matches!(store.backup(&elsewhere.path().join(FILE)).await, Err(StoreFault::BackupExists { .. })));
}

#[tokio::test]
async fn a_damaged_row_is_a_fault_not_a_guess() {
    let directory = TempDir::new().unwrap();
    let store = Store::open(directory.path()).await.unwrap();
    store.add_key(&key("aaaaaaaa", KeyUse::Agent(agent("ci")))).await.unwrap();
    sqlx::query("UPDATE api_keys SET hash = 'short'").execute(&store.pool).await.unwrap();
    assert!(matches!(store.keys().await, Err(StoreFault::Damaged { table: "api_keys", column: "hash" })));
}
