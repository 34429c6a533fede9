//! Which content was copied to which path of a layer, for the next run of the same copy.

use rusqlite::{OptionalExtension, params};

use super::{LayerId, Result, Store};
use crate::fileop::Copied;

pub(super) const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS copied (
    layer TEXT PRIMARY KEY,
    files BLOB NOT NULL
);
";

impl Store {
    /// What was copied into a layer, as far as it is known.
    pub fn copied(&self, layer: &LayerId) -> Result<Option<Copied>> {
        let files: Option<Vec<u8>> = self
            .db
            .get()
            .prepare_cached("SELECT files FROM copied WHERE layer = ?1")?
            .query_row(params![layer.as_str()], |row| row.get(0))
            .optional()?;
        Ok(files.map(|files| Copied::decode(&files)))
    }

    /// Notes what was copied into a layer. What is known of `before`, which it takes the place of,
    /// is forgotten.
    pub fn put_copied(
        &self,
        layer: &LayerId,
        files: &Copied,
        before: Option<&LayerId>,
    ) -> Result<()> {
        let mut connection = self.db.get();
        let transaction = connection.transaction()?;
        if let Some(before) = before {
            transaction.execute("DELETE FROM copied WHERE layer = ?1", params![before.as_str()])?;
        }
        transaction.execute(
            "INSERT OR REPLACE INTO copied (layer, files) VALUES (?1, ?2)",
            params![layer.as_str(), files.encode()],
        )?;
        transaction.commit()?;
        Ok(())
    }

    /// Forgets what was copied into a layer that goes.
    pub(super) fn drop_copied(&self, layer: &LayerId) -> Result<()> {
        self.db.get().execute("DELETE FROM copied WHERE layer = ?1", params![layer.as_str()])?;
        Ok(())
    }
}
