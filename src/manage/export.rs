use std::mem::take;

use crate::{api::ApiKeys, error::Error};
use crate::{
    audit::{AuditQuery, ExportFormat},
    model::{Owner, OwnerScope},
};

/// An export of the audit log, which is read page by page: only one is in memory at a time.
#[derive(Clone, Debug)]
#[must_use]
pub struct AuditExport {
    keys: ApiKeys,
    format: ExportFormat,
    reader: Reader,
    /// What is asked for next; whose events, says the reader.
    query: AuditQuery<'static>,
    head: String,
    over: bool,
}

impl ApiKeys {
    /// Events of the audit log as text, newest first: for a file, an archive, a spreadsheet. The
    /// query's [`limit`](AuditQuery::limit) says how many are read at a time.
    ///
    /// # Examples
    /// ```
    /// # use keyward::{AuditQuery, testing::TestKeys};
    /// # use std::io::Write;
    /// use keyward::audit::ExportFormat;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let test = TestKeys::new();
    /// # let (keys, ada, mut file) = (&test.keys, &test.owner, Vec::new());
    /// # let issued = test.issue(["a"]).await;
    /// let mut export = keys.export(AuditQuery::new(ada).limit(500), ExportFormat::Csv);
    /// while let Some(page) = export.next_page().await? {
    ///     file.write_all(page.as_bytes())?;
    /// }
    /// # assert!(file.starts_with(b"id,time,event,"));
    /// # Ok(()) }
    /// ```
    pub fn export(&self, query: AuditQuery<'_>, format: ExportFormat) -> AuditExport {
        let AuditQuery { within, key_id, kind, from, until, after, limit } = query;
        let query =
            AuditQuery { within: OwnerScope::Tenant(""), key_id, kind, from, until, after, limit };
        let (reader, head) = (Reader::of(within), format.header());
        AuditExport { keys: self.clone(), format, reader, query, head, over: false }
    }
}

impl AuditExport {
    /// The next lines, whole ones; `None` behind the last. Events that happen meanwhile shift
    /// nothing. Dropping the future loses nothing either.
    ///
    /// # Errors
    /// Those of a store that fails. Nothing is lost: the next call asks for the same page.
    pub async fn next_page(&mut self) -> Result<Option<String>, Error> {
        if self.over {
            return Ok(None);
        }
        let mut query: AuditQuery<'_> = self.query;
        query.within = self.reader.within();
        let events = self.keys.events(query).await?;
        self.over = events.len() < query.limit as usize || events.is_empty();
        self.query.after = events.last().map(|last| last.id);
        let mut page = take(&mut self.head);
        for event in &events {
            self.format.write(&mut page, event);
        }
        Ok(Some(page).filter(|page| !page.is_empty()))
    }

    /// Whether there is nothing behind what was read.
    #[cfg(feature = "manage")]
    pub(crate) fn is_over(&self) -> bool {
        self.over
    }
}

/// As [`OwnerScope`], for as long as it takes.
#[derive(Clone, Debug)]
enum Reader {
    Owner(Owner),
    Tenant(String),
}

impl Reader {
    fn of(within: OwnerScope<'_>) -> Self {
        match within {
            OwnerScope::Owner(owner) => Self::Owner(owner.clone()),
            OwnerScope::Tenant(tenant) => Self::Tenant(tenant.into()),
        }
    }

    fn within(&self) -> OwnerScope<'_> {
        match self {
            Self::Owner(owner) => OwnerScope::Owner(owner),
            Self::Tenant(tenant) => OwnerScope::Tenant(tenant),
        }
    }
}
