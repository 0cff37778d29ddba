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

/// All clients: in memory, and in a file if there is one. A real service has a table.
#[derive(Clone, Default)]
pub struct Clients(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    rows: Vec<Row>,
    file: Option<File>,
}

#[derive(Deserialize, Serialize)]
struct Row {
    tenant: String,
    /// Of its secret there is a digest, as there is of keys.
    secret_sha256: Option<String>,
    #[serde(flatten)]
    client: Client,
}

/// What may be shown of a client.
#[derive(Clone, Deserialize, Serialize)]
pub struct Client {
    pub client_id: String,
    pub client_id_issued_at: i64,
    #[serde(flatten)]
    pub metadata: ClientMetadata,
}

impl Clients {
    /// Keeps them in a file, one in a line, and reads those that are there.
    pub fn open(path: &str) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        let lines = BufReader::new(&file).lines();
        let rows =
            lines.map(|line| Ok(serde_json::from_str(&line?)?)).collect::<io::Result<_>>()?;
        Ok(Self(Arc::new(Mutex::new(Kept { rows, file: Some(file) }))))
    }

    /// Waits for the disk.
    pub fn add(&self, tenant: &str, client: Client, secret: Option<&Secret>) -> io::Result<()> {
        let digest = |secret: &Secret| BASE64_STANDARD.encode(Sha256::digest(secret.expose()));
        let row = Row { tenant: tenant.into(), secret_sha256: secret.map(digest), client };
        let mut kept = self.kept();
        if let Some(file) = &mut kept.file {
            let line = serde_json::to_string(&row)? + "\n";
            file.write_all(line.as_bytes())?;
            file.sync_data()?;
        }
        kept.rows.push(row);
        Ok(())
    }

    pub fn of(&self, tenant: &str) -> Vec<Client> {
        let kept = self.kept();
        let own = kept.rows.iter().filter(|row| row.tenant == tenant);
        own.map(|row| row.client.clone()).collect()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
