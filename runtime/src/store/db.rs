//! The index: SQLite in WAL mode, shared by processes.

use std::{
    fs,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rbc_ir::Digest;
use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior, params};

use super::{LayerId, Result, Store, StoreError};

pub(super) struct Db(Mutex<Connection>);

/// What makes version n + 1 of the index out of version n. Only ever added to: state folders of
/// older versions go through the steps that they lack.
const STEPS: [&str; 6] = [
    FIRST,
    super::blob_places::SCHEMA,
    super::results::ADD_CONTENT_KEYS,
    super::space::ADD_EVICTED,
    super::space::ADD_KIND,
    super::copied::SCHEMA,
];

const FIRST: &str = "
CREATE TABLE IF NOT EXISTS results (
    key BLOB PRIMARY KEY,
    id BLOB NOT NULL,
    layers TEXT NOT NULL,
    inputs BLOB NOT NULL,
    name TEXT NOT NULL,
    millis INTEGER NOT NULL,
    created INTEGER NOT NULL,
    last_used INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS layers (
    id TEXT PRIMARY KEY,
    diff_id BLOB,
    size INTEGER
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS layer_blobs (
    layer TEXT NOT NULL,
    compression TEXT NOT NULL,
    epoch INTEGER,
    digest BLOB NOT NULL,
    size INTEGER NOT NULL,
    diff_id BLOB NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS layer_blobs_key ON layer_blobs (layer, compression, ifnull(epoch, 'none'));
CREATE TABLE IF NOT EXISTS images (
    name TEXT PRIMARY KEY,
    digest BLOB NOT NULL,
    created INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS containers (
    name TEXT PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    image TEXT NOT NULL,
    manifest BLOB NOT NULL,
    created INTEGER NOT NULL
) WITHOUT ROWID;
";

/// A name in the local image store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRecord {
    /// Normalised name with tag.
    pub name: String,
    /// Digest of its manifest or index.
    pub digest: Digest,
    /// When the name was given, in seconds since the epoch.
    pub created: i64,
}

/// A container made by `rbc create`: an image under a name, to copy files from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerRecord {
    /// Name, given or made up.
    pub name: String,
    /// 64 hexadecimal digits.
    pub id: String,
    /// The image as the user named it.
    pub image: String,
    /// Digest of the image's manifest.
    pub manifest: Digest,
    /// When it was made, in seconds since the epoch.
    pub created: i64,
}

impl Db {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let mut connection = Connection::open(path)?;
        connection.busy_timeout(Duration::from_secs(60))?;
        let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
        // Switching takes a lock on the whole file, so it is done once in a folder's life.
        if !mode.eq_ignore_ascii_case("wal") {
            connection.pragma_update(None, "journal_mode", "wal")?;
        }
        connection.pragma_update(None, "synchronous", "normal")?;
        migrate(&mut connection)?;
        Ok(Self(Mutex::new(connection)))
    }

    /// Opens the index without changing it.
    pub(super) fn open_read_only(path: &Path) -> Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let open = |connection: Connection| -> Result<Self> {
            connection.busy_timeout(Duration::from_secs(60))?;
            let version: usize =
                connection.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0))? as _;
            if version < STEPS.len() {
                return Err(StoreError::OldIndex(path.to_owned()));
            }
            Ok(Self(Mutex::new(connection)))
        };
        let opened = Connection::open_with_flags(path, flags).map_err(Into::into).and_then(open);
        // WAL mode wants to write beside the file, even to read. Where nothing can be written,
        // nobody else does, and without a log of changes the file alone says everything.
        let log = path.with_extension("db-wal");
        match opened {
            Err(StoreError::Index(_)) if fs::metadata(&log).map_or(0, |facts| facts.len()) == 0 => {
                let mut address = String::from("file:");
                for byte in path.as_os_str().as_encoded_bytes() {
                    match byte {
                        b'/' | b'.' | b'-' | b'_' => address.push(char::from(*byte)),
                        byte if byte.is_ascii_alphanumeric() => address.push(char::from(*byte)),
                        byte => address.push_str(&format!("%{byte:02x}")),
                    }
                }
                address.push_str("?immutable=1");
                open(Connection::open_with_flags(address, flags | OpenFlags::SQLITE_OPEN_URI)?)
            }
            other => other,
        }
    }

    /// The connection. A thread that panicked while holding it has left no transaction open.
    pub(super) fn get(&self) -> MutexGuard<'_, Connection> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Brings the index to the newest version.
fn migrate(connection: &mut Connection) -> Result<()> {
    let version = |connection: &Connection| -> Result<usize> {
        let known: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        Ok(usize::try_from(known).unwrap_or(usize::MAX))
    };
    if version(connection)? >= STEPS.len() {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have been faster.
    for (at, step) in STEPS.iter().enumerate().skip(version(&transaction)?) {
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", at as i64 + 1)?;
    }
    transaction.commit()?;
    Ok(())
}

/// The time in seconds since the epoch.
pub(crate) fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64)
}

pub(super) fn digest_of(bytes: &[u8]) -> Option<Digest> {
    Some(Digest::from_bytes(bytes.try_into().ok()?))
}

impl Store {
    /// The tar of a layer in a compression, made earlier and still there: blob digest, its size,
    /// and the diff ID. `epoch` is the `SOURCE_DATE_EPOCH` it was made under.
    pub fn layer_blob(
        &self,
        layer: &LayerId,
        compression: &str,
        epoch: Option<i64>,
    ) -> Result<Option<(Digest, u64, Digest)>> {
        let found = self
            .db
            .get()
            .prepare_cached(
                "SELECT digest, size, diff_id FROM layer_blobs
             WHERE layer = ?1 AND compression = ?2 AND ifnull(epoch, 'none') = ifnull(?3, 'none')",
            )?
            .query_row(params![layer.as_str(), compression, epoch], |row| {
                Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, i64>(1)?, row.get::<_, Vec<u8>>(2)?))
            })
            .optional()?;
        let Some((digest, size, diff_id)) = found else { return Ok(None) };
        let (Some(digest), Some(diff_id)) = (digest_of(&digest), digest_of(&diff_id)) else {
            return Ok(None);
        };
        let size = size.unsigned_abs();
        Ok((self.blobs().size(&digest) == Some(size)).then_some((digest, size, diff_id)))
    }

    /// The diff ID of a layer under a `SOURCE_DATE_EPOCH`, if a tar of it was made in whatever
    /// compression.
    pub(crate) fn layer_diff_id(
        &self,
        layer: &LayerId,
        epoch: Option<i64>,
    ) -> Result<Option<Digest>> {
        let connection = self.db.get();
        let mut query = connection.prepare_cached(
            "SELECT diff_id FROM layer_blobs
             WHERE layer = ?1 AND ifnull(epoch, 'none') = ifnull(?2, 'none')",
        )?;
        let found = query
            .query_row(params![layer.as_str(), epoch], |row| row.get::<_, Vec<u8>>(0))
            .optional()?;
        Ok(found.and_then(|bytes| digest_of(&bytes)))
    }

    /// A blob that was made of a tar with this diff ID in one of these compressions, whatever layer
    /// it was made for, and is still there: its digest and size.
    pub(crate) fn packed_tar(
        &self,
        diff_id: &Digest,
        compressions: [&str; 2],
    ) -> Result<Option<(Digest, u64)>> {
        let connection = self.db.get();
        let mut query = connection.prepare_cached(
            "SELECT digest, size FROM layer_blobs WHERE diff_id = ?1 AND compression IN (?2, ?3)",
        )?;
        let [one, other] = compressions;
        let rows = query.query_map(params![diff_id.as_bytes(), one, other], |row| {
            Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, i64>(1)?))
        })?;
        for row in rows {
            let (digest, size) = row?;
            let size = size.unsigned_abs();
            if let Some(digest) = digest_of(&digest)
                && self.blobs().size(&digest) == Some(size)
            {
                return Ok(Some((digest, size)));
            }
        }
        Ok(None)
    }

    /// Notes the tar of a layer for [`Store::layer_blob`].
    pub fn put_layer_blob(
        &self,
        layer: &LayerId,
        compression: &str,
        epoch: Option<i64>,
        blob: (Digest, u64, Digest),
    ) -> Result<()> {
        let (digest, size, diff_id) = blob;
        self.db.get().execute(
            "INSERT OR REPLACE INTO layer_blobs (layer, compression, epoch, digest, size, diff_id)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                layer.as_str(),
                compression,
                epoch,
                digest.as_bytes(),
                size as i64,
                diff_id.as_bytes()
            ],
        )?;
        Ok(())
    }

    /// All blobs that layers are known to have as tars, for the sweep.
    pub fn layer_blob_digests(&self) -> Result<Vec<Digest>> {
        let connection = self.db.get();
        let mut query = connection.prepare("SELECT digest FROM layer_blobs")?;
        let rows = query.query_map([], |row| row.get::<_, Vec<u8>>(0))?;
        rows.filter_map(|row| row.map(|bytes| digest_of(&bytes)).transpose())
            .collect::<std::result::Result<_, _>>()
            .map_err(Into::into)
    }

    /// What a name of the local image store stands for.
    pub fn image(&self, name: &str) -> Result<Option<ImageRecord>> {
        Ok(self.images()?.into_iter().find(|image| image.name == name))
    }

    /// All names of the local image store, sorted.
    pub fn images(&self) -> Result<Vec<ImageRecord>> {
        let connection = self.db.get();
        let mut query =
            connection.prepare("SELECT name, digest, created FROM images ORDER BY name")?;
        let rows = query.query_map([], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(1)?, row.get::<_, i64>(2)?))
        })?;
        let mut images = Vec::new();
        for row in rows {
            let (name, digest, created) = row?;
            if let Some(digest) = digest_of(&digest) {
                images.push(ImageRecord { name, digest, created });
            }
        }
        Ok(images)
    }

    /// Gives a name to a manifest or index, taking it from what had it before.
    pub fn put_image(&self, name: &str, digest: &Digest) -> Result<()> {
        self.db.get().execute(
            "INSERT OR REPLACE INTO images (name, digest, created) VALUES (?1, ?2, ?3)",
            params![name, digest.as_bytes(), now()],
        )?;
        Ok(())
    }

    /// Removes a name; tells whether it was there.
    pub fn remove_image(&self, name: &str) -> Result<bool> {
        Ok(self.db.get().execute("DELETE FROM images WHERE name = ?1", params![name])? > 0)
    }

    /// Notes a container; `false` if the name is taken.
    pub fn add_container(&self, container: &ContainerRecord) -> Result<bool> {
        Ok(self.db.get().execute(
            "INSERT OR IGNORE INTO containers (name, id, image, manifest, created)
             VALUES (?1, ?2, ?3, ?4, ?5)",
            params![
                container.name,
                container.id,
                container.image,
                container.manifest.as_bytes(),
                container.created
            ],
        )? > 0)
    }

    /// All containers, newest first.
    pub fn containers(&self) -> Result<Vec<ContainerRecord>> {
        let connection = self.db.get();
        let mut query = connection.prepare(
            "SELECT name, id, image, manifest, created FROM containers ORDER BY created DESC, name",
        )?;
        let rows = query.query_map([], |row| {
            Ok((
                row.get::<_, String>(0)?,
                row.get::<_, String>(1)?,
                row.get::<_, String>(2)?,
                row.get::<_, Vec<u8>>(3)?,
                row.get::<_, i64>(4)?,
            ))
        })?;
        let mut containers = Vec::new();
        for row in rows {
            let (name, id, image, manifest, created) = row?;
            if let Some(manifest) = digest_of(&manifest) {
                containers.push(ContainerRecord { name, id, image, manifest, created });
            }
        }
        Ok(containers)
    }

    /// Removes a container; tells whether it was there.
    pub fn remove_container(&self, name: &str) -> Result<bool> {
        Ok(self.db.get().execute("DELETE FROM containers WHERE name = ?1", params![name])? > 0)
    }
}
