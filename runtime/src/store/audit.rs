//! The index as it is, row by row, for those who check it.

use rbc_ir::Digest;
use rusqlite::params;

use super::{
    LayerId, Result, Store,
    db::{digest_of, now},
    results::split_layers,
};

/// For how many seconds an evicted result is remembered.
const EVICTED_LIFE: i64 = 30 * 24 * 3600;

/// A row of the table of results.
pub(crate) struct ResultRow {
    /// The key as it is stored.
    key: Vec<u8>,
    /// The identity as it is stored.
    id: Vec<u8>,
    /// Name of the step.
    pub name: String,
    /// The layers, lowest first; `None` if they cannot be read.
    pub layers: Option<Vec<LayerId>>,
    /// When it was used last, in seconds since the epoch.
    pub last_used: i64,
    /// How long it took to make, in milliseconds.
    pub millis: u64,
}

/// A layer's tar.
pub(crate) struct LayerBlobRow {
    row: i64,
    /// The layer.
    pub layer: Option<LayerId>,
    /// Its compression, or what it was made for.
    pub compression: String,
    /// The `SOURCE_DATE_EPOCH` that it was made under.
    pub epoch: Option<i64>,
    /// The blob and the digest of the uncompressed tar; `None` if they cannot be read.
    pub digests: Option<(Digest, Digest)>,
    /// Size of the blob in bytes.
    pub size: u64,
}

impl Store {
    /// What SQLite finds wrong with the index; nothing if it is sound.
    pub(crate) fn index_faults(&self) -> Result<Vec<String>> {
        let connection = self.db.get();
        let mut query = connection.prepare("PRAGMA integrity_check(20)")?;
        let lines = query.query_map([], |row| row.get::<_, String>(0))?;
        let lines: Vec<String> = lines.collect::<std::result::Result<_, _>>()?;
        Ok(lines.into_iter().filter(|line| line != "ok").collect())
    }

    /// All results that were not evicted.
    pub(crate) fn result_rows(&self) -> Result<Vec<ResultRow>> {
        let connection = self.db.get();
        let mut query = connection.prepare(
            "SELECT key, id, name, layers, last_used, millis FROM results WHERE evicted IS NULL",
        )?;
        let rows = query.query_map([], |row| {
            Ok(ResultRow {
                key: row.get(0)?,
                id: row.get(1)?,
                name: row.get(2)?,
                layers: split_layers(&row.get::<_, String>(3)?),
                last_used: row.get(4)?,
                millis: row.get::<_, i64>(5)?.unsigned_abs(),
            })
        })?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }

    /// Marks results as evicted that have not been replaced since.
    pub(crate) fn mark_evicted(&self, rows: &[&ResultRow]) -> Result<()> {
        let mut connection = self.db.get();
        let transaction = connection.transaction()?;
        for row in rows {
            transaction
                .prepare_cached("UPDATE results SET evicted = ?3 WHERE key = ?1 AND id = ?2")?
                .execute(params![row.key, row.id, now()])?;
        }
        // For how long a build may want to know why it misses.
        transaction
            .prepare_cached("DELETE FROM results WHERE evicted < ?1")?
            .execute(params![now() - EVICTED_LIFE])?;
        transaction.commit()?;
        Ok(())
    }

    /// Removes a result unless it has been replaced since.
    pub(crate) fn drop_result(&self, row: &ResultRow) -> Result<()> {
        self.db
            .get()
            .execute("DELETE FROM results WHERE key = ?1 AND id = ?2", params![row.key, row.id])?;
        Ok(())
    }

    /// All tars of layers.
    pub(crate) fn layer_blob_rows(&self) -> Result<Vec<LayerBlobRow>> {
        let connection = self.db.get();
        let mut query = connection.prepare(
            "SELECT rowid, layer, compression, epoch, digest, diff_id, size FROM layer_blobs",
        )?;
        let rows = query.query_map([], |row| {
            let digests = (row.get::<_, Vec<u8>>(4)?, row.get::<_, Vec<u8>>(5)?);
            Ok(LayerBlobRow {
                row: row.get(0)?,
                layer: row.get::<_, String>(1)?.parse().ok(),
                compression: row.get(2)?,
                epoch: row.get(3)?,
                digests: digest_of(&digests.0).zip(digest_of(&digests.1)),
                size: row.get::<_, i64>(6)?.unsigned_abs(),
            })
        })?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }

    /// Forgets a layer's tar.
    pub(crate) fn drop_layer_blob(&self, row: &LayerBlobRow) -> Result<()> {
        self.db.get().execute("DELETE FROM layer_blobs WHERE rowid = ?1", params![row.row])?;
        Ok(())
    }
}

impl Store {
    /// Whether a row is still as it was read.
    pub(crate) fn is_result_of_now(&self, row: &ResultRow) -> Result<bool> {
        let mut connection = self.db.get();
        let transaction = connection.transaction()?;
        let count: i64 = transaction.query_row(
            "SELECT count(*) FROM results WHERE key = ?1 AND id = ?2 AND evicted IS NULL",
            params![row.key, row.id],
            |row| row.get(0),
        )?;
        Ok(count > 0)
    }

    /// Takes a name away from an image unless it stands for another one by now.
    pub(crate) fn remove_image_of(&self, name: &str, digest: &Digest) -> Result<()> {
        self.db.get().execute(
            "DELETE FROM images WHERE name = ?1 AND digest = ?2",
            params![name, digest.as_bytes()],
        )?;
        Ok(())
    }

    /// Makes the look-up structures of the index anew from its tables.
    pub(crate) fn rebuild_index(&self) -> Result<()> {
        self.db.get().execute_batch("REINDEX")?;
        Ok(())
    }
}
