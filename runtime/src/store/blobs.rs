//! Content-addressed files: `blobs/sha256/<hex>`.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use rbc_ir::Digest;
use sha2::Digest as _;
use tempfile::NamedTempFile;

use super::{
    Result, SpaceItem, Store, StoreError, db::Db, hold::Held, hold::Holds, session::Session,
};

/// Blobs take whole blocks of this size on almost all file systems.
const BLOCK: u64 = 4096;

/// The blobs of a state folder. A blob that was looked up stays there until the store is closed.
#[derive(Clone)]
pub struct Blobs {
    dir: PathBuf,
    staging: Arc<Session>,
    holds: Arc<Holds>,
    db: Arc<Db>,
}

impl Blobs {
    pub(super) fn new(
        dir: PathBuf,
        staging: &Arc<Session>,
        holds: &Arc<Holds>,
        db: &Arc<Db>,
    ) -> Self {
        let (staging, holds, db) = (Arc::clone(staging), Arc::clone(holds), Arc::clone(db));
        Self { dir, staging, holds, db }
    }

    /// Where a blob is, whether it exists or not.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(digest.hex())
    }

    /// Size of a blob in bytes; `None` if it is not there.
    pub fn size(&self, digest: &Digest) -> Option<u64> {
        // What cannot be held may vanish at any time, so it counts as gone.
        self.holds.hold(Held::Blob(digest)).ok()?;
        self.peek_size(digest)
    }

    /// As [`Blobs::size`], for those who do not need the blob to stay.
    pub fn peek_size(&self, digest: &Digest) -> Option<u64> {
        fs::metadata(self.path(digest)).ok().filter(fs::Metadata::is_file).map(|m| m.len())
    }

    /// The content of a small blob of at most `limit` bytes if it is there and what its digest
    /// says, for those who do not need it to stay.
    pub fn peek(&self, digest: &Digest, limit: u64) -> Option<Vec<u8>> {
        let mut data = Vec::new();
        let file = File::open(self.path(digest)).ok()?;
        file.take(limit).read_to_end(&mut data).ok()?;
        (Digest::of(&data) == *digest).then_some(data)
    }

    /// Whether the blob is there. Its content is checked when it is read.
    pub fn has(&self, digest: &Digest) -> bool {
        self.size(digest).is_some()
    }

    /// Lets go of a blob; `false` if it was not held. Who looked it up must do without it from now on.
    pub(crate) fn let_go_of(&self, digest: &Digest) -> Result<bool> {
        self.holds.let_go_of(Held::Blob(digest))
    }

    /// Opens a blob for a reader that checks the digest itself. See [`Blobs::read`] for small ones.
    pub fn open(&self, digest: &Digest) -> Result<File> {
        let path = self.path(digest);
        self.holds.hold(Held::Blob(digest))?;
        File::open(&path).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => StoreError::MissingBlob(*digest),
            _ => StoreError::io("cannot open", &path)(e),
        })
    }

    /// Reads a small blob (manifest, config) of at most `limit` bytes and checks its digest. A
    /// damaged one is removed, so that it can be fetched again.
    pub fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        let path = self.path(digest);
        let mut data = Vec::new();
        self.open(digest)?
            .take(limit)
            .read_to_end(&mut data)
            .map_err(StoreError::io("cannot read", &path))?;
        let actual = Digest::of(&data);
        if actual != *digest {
            let _ = fs::remove_file(&path);
            return Err(StoreError::Damaged { path, actual });
        }
        Ok(data)
    }

    /// A writer for a new blob.
    pub fn writer(&self) -> Result<BlobWriter> {
        let staging = self.staging.path()?;
        let file = NamedTempFile::new_in(&staging)
            .map_err(StoreError::io("cannot create a file in", &staging))?;
        Ok(BlobWriter {
            file,
            hash: sha2::Sha256::new(),
            size: 0,
            dir: self.dir.clone(),
            holds: Arc::clone(&self.holds),
            db: Arc::clone(&self.db),
        })
    }

    /// Stores bytes that are at hand, which are few: they count for the limit of the state folder,
    /// but no room is made for them.
    pub fn write(&self, data: &[u8]) -> Result<Digest> {
        let digest = Digest::of(data);
        if self.size(&digest) == Some(data.len() as u64) {
            return Ok(digest);
        }
        let mut writer = self.writer()?;
        writer.write_all(data).map_err(StoreError::io("cannot write", &self.path(&digest)))?;
        writer.publish(Some(digest))?;
        Ok(digest)
    }

    /// Removes a blob. Only for a caller that has taken it (`Store::nothing_taken`), or for a
    /// blob found damaged.
    pub fn remove(&self, digest: &Digest) -> Result<()> {
        let path = self.path(digest);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::io("cannot remove", &path)(e))
            }
            _ => self.db.drop_space(SpaceItem::Blob(digest), 0),
        }
    }

    /// All blobs with their sizes, in no order.
    pub fn list(&self) -> Result<Vec<(Digest, u64)>> {
        let entries = fs::read_dir(&self.dir).map_err(StoreError::io("cannot read", &self.dir))?;
        Ok(entries
            .flatten()
            .filter_map(|entry| {
                let digest = Digest::from_hex(entry.file_name().to_str()?).ok()?;
                Some((digest, entry.metadata().ok()?.len()))
            })
            .collect())
    }
}

/// Takes a blob's bytes and publishes them under their digest.
pub struct BlobWriter {
    file: NamedTempFile,
    hash: sha2::Sha256,
    size: u64,
    dir: PathBuf,
    holds: Arc<Holds>,
    db: Arc<Db>,
}

impl BlobWriter {
    /// Bytes written so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The file being written, for readers of what is there already.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Publishes the blob and gives its digest and size in bytes. `store` is where it came from.
    ///
    /// # Errors
    /// [`StoreError::WrongDigest`] if it is not the `expected` one; nothing is kept then.
    /// [`StoreError::Full`] if there is a limit and no room can be made.
    pub fn finish(self, store: &Store, expected: Option<Digest>) -> Result<(Digest, u64)> {
        let _room = store.make_room(self.taken())?;
        self.publish(expected)
    }

    /// Bytes that the blob takes on disk.
    fn taken(&self) -> u64 {
        self.size.next_multiple_of(BLOCK)
    }

    fn publish(self, expected: Option<Digest>) -> Result<(Digest, u64)> {
        let taken = self.taken();
        let actual = Digest::from_bytes(self.hash.finalize().into());
        if let Some(expected) = expected.filter(|expected| *expected != actual) {
            return Err(StoreError::WrongDigest { expected, actual });
        }
        let place = self.dir.join(actual.hex());
        self.holds.hold(Held::Blob(&actual))?;
        self.file.persist(&place).map_err(|e| StoreError::io("cannot publish", &place)(e.error))?;
        self.db.put_space(SpaceItem::Blob(&actual), "", taken)?;
        Ok((actual, self.size))
    }
}

impl Write for BlobWriter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let written = self.file.as_file_mut().write(data)?;
        self.hash.update(&data[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_file_mut().flush()
    }
}
