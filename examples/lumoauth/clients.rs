//! The OAuth clients of each tenant.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use keyward::Secret;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::metadata::ClientMetadata;

/// All clients, in memory and optionally in a file. A real service uses its database.
#[derive(Clone, Default)]
pub struct Clients(Arc<Mutex<ClientTable>>);

#[derive(Default)]
struct ClientTable {
    rows: Vec<ClientRow>,
    file: Option<File>,
}

#[derive(Deserialize, Serialize)]
struct ClientRow {
    tenant: String,
    /// Only a digest of the secret is stored, as for API keys.
    secret_sha256: Option<String>,
    #[serde(flatten)]
    client: Client,
}

/// The public data of a client.
#[derive(Clone, Deserialize, Serialize)]
pub struct Client {
    pub client_id: String,
    pub client_id_issued_at: i64,
    #[serde(flatten)]
    pub metadata: ClientMetadata,
}

impl Clients {
    /// Opens a file with one client per line, and loads its clients.
    pub fn open(path: &str) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        let lines = BufReader::new(&file).lines();
        let rows =
            lines.map(|line| Ok(serde_json::from_str(&line?)?)).collect::<io::Result<_>>()?;
        Ok(Self(Arc::new(Mutex::new(ClientTable { rows, file: Some(file) }))))
    }

    /// Adds a client, and waits until it is synced to disk.
    pub fn add(&self, tenant: &str, client: Client, secret: Option<&Secret>) -> io::Result<()> {
        let digest = |secret: &Secret| BASE64_STANDARD.encode(Sha256::digest(secret.expose()));
        let row = ClientRow { tenant: tenant.into(), secret_sha256: secret.map(digest), client };
        let mut table = self.table();
        if let Some(file) = &mut table.file {
            let line = serde_json::to_string(&row)? + "\n";
            file.write_all(line.as_bytes())?;
            file.sync_data()?;
        }
        table.rows.push(row);
        Ok(())
    }

    pub fn of_tenant(&self, tenant: &str) -> Vec<Client> {
        let table = self.table();
        let own = table.rows.iter().filter(|row| row.tenant == tenant);
        own.map(|row| row.client.clone()).collect()
    }

    fn table(&self) -> MutexGuard<'_, ClientTable> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
