//! The state folder: layers, blobs, cache mounts, logs and the index that ties them together.
//!
//! Several processes may share one state folder and any of them may be killed at any instant.
//! Whatever is built is therefore written below `tmp/`, which belongs to live processes through
//! file locks and is swept at start, and published by one rename. Published layers and blobs are
//! never written again.
//!
//! | place | what |
//! | --- | --- |
//! | `index.db` | SQLite in WAL mode: results, layers, images, containers |
//! | `layers/<id>/` | a layer in overlayfs upper format |
//! | `blobs/sha256/<hex>` | manifests, configs, compressed layers |
//! | `mounts/<id>/` | cache mounts |
//! | `contexts/<id>` | stat indexes of build contexts |
//! | `downloads/<id>` | what a server said of a file: digest, time, `ETag` |
//! | `builds/<build>/` | records of past builds, see [`crate::history`] |
//! | `logs/<build>/<step>.log` | what steps printed |
//! | `keys.lock`, `holds.lock` | bytes that stand for steps being made and for what is in use |
//! | `room.lock` | held while room is made and filled, where there is a limit |
//! | `reserve` | space for cleaning up when the disk is full |
//! | `tmp/<session>/` | work in progress of one process |

mod audit;
mod blob_places;
mod blobs;
mod copied;
mod db;
mod hold;
mod layers;
mod lock;
mod mounts;
mod remove;
mod results;
mod salvage;
mod session;
mod space;

use std::{
    collections::HashSet,
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

pub(crate) use audit::ResultRow;
pub use blobs::{BlobWriter, Blobs};
pub use db::{ContainerRecord, ImageRecord};
pub(crate) use hold::{Held, Taken};
pub use layers::{LayerId, LayerIdError};
pub use lock::KeyLock;
pub(crate) use mounts::MountLock;
pub(crate) use remove::remove_tree;
pub(crate) use results::result_id;
pub use results::{CachedResult, Candidates, InputContent, LookUp, StoredResult};
pub use session::TmpDir;
pub use space::LayerKind;
pub(crate) use space::{Noted, SpaceItem};

/// Layout of the state folder; another version is refused rather than misread.
const LAYOUT_VERSION: &str = "1\n";

/// Why the state folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A file or folder of the state folder cannot be read or written.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was tried, for example `cannot create`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The index cannot be read or written.
    #[error("cannot use the index of the state folder: {}", index_reason(.0))]
    Index(rusqlite::Error),
    /// The index is of an older rbc and cannot be brought up to date by one who only reads.
    #[error("{} is of an older rbc: run a command that may write once", .0.display())]
    OldIndex(PathBuf),
    /// The folder was made by another version of rbc.
    #[error(
        "{path} has layout version {found}, this rbc knows {LAYOUT_VERSION}: use another --root"
    )]
    Layout {
        /// The state folder.
        path: PathBuf,
        /// What its version file says.
        found: String,
    },
    /// Bytes are not what their digest says.
    #[error("{path} is damaged: its content has digest {actual}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Digest of what is there.
        actual: rbc_ir::Digest,
    },
    /// Received bytes are not what was asked for.
    #[error("expected {expected}, but what arrived has digest {actual}")]
    WrongDigest {
        /// Digest that was asked for.
        expected: rbc_ir::Digest,
        /// Digest of what arrived.
        actual: rbc_ir::Digest,
    },
    /// A blob is not in the store.
    #[error("blob {0} is not in the store")]
    MissingBlob(rbc_ir::Digest),
    /// What is about to be published does not fit within the limit of the state folder.
    #[error("the state folder is limited to {max}, and {needed} are needed: {holders}")]
    Full {
        /// The limit, for people.
        max: String,
        /// What would be taken, for people.
        needed: String,
        /// What holds the space.
        holders: String,
        /// Whether it would fit if nothing else were held.
        may_fit: bool,
    },
}

impl StoreError {
    /// Whether the cause is that nothing can be written: no space, no permission, a read-only disk.
    pub fn is_unwritable(&self) -> bool {
        use rusqlite::ErrorCode;
        match self {
            Self::Io { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::StorageFull
                    | io::ErrorKind::QuotaExceeded
                    | io::ErrorKind::ReadOnlyFilesystem
                    | io::ErrorKind::PermissionDenied
            ),
            Self::Index(error) => matches!(
                error.sqlite_error_code(),
                Some(
                    ErrorCode::DiskFull
                        | ErrorCode::ReadOnly
                        | ErrorCode::CannotOpen
                        | ErrorCode::PermissionDenied
                        | ErrorCode::SystemIoFailure
                )
            ),
            _ => false,
        }
    }

    /// Whether the limit of the state folder is in the way, as long as others hold what they do.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self, Self::Full { may_fit: true, .. })
    }

    /// Wraps an I/O error with what was tried on which path.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

// Without `#[from]`, so that its message is not told a second time as a cause.
impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Index(error)
    }
}

/// SQLite's codes in words that say what to do.
fn index_reason(error: &rusqlite::Error) -> String {
    use rusqlite::ErrorCode;
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => {
            "no space left on its disk: `rbc prune` removes what can be made again".to_owned()
        }
        Some(ErrorCode::ReadOnly) => {
            "it lies on a read-only disk, or belongs to another user".to_owned()
        }
        Some(ErrorCode::SystemIoFailure) => {
            format!(
                "{error}: its disk is full or broken; `rbc prune` removes what can be made again"
            )
        }
        _ if salvage::is_damage(error) => {
            format!("{error}: index.db is damaged, `rbc fsck` saves what can be read of it")
        }
        _ => error.to_string(),
    }
}

/// Result of an operation on the state folder.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// An open state folder.
pub struct Store {
    root: PathBuf,
    db: Arc<db::Db>,
    blobs: Blobs,
    session: Arc<session::Session>,
    holds: Arc<hold::Holds>,
    /// Layers that are held and were seen: they need no second look.
    seen: Mutex<HashSet<LayerId>>,
    /// What was wrong with the index when it was opened.
    salvaged: Option<String>,
    /// Most bytes that a layer from outside may have.
    largest_layer: AtomicU64,
    /// Makes room for what is about to be published, where there is a limit.
    room_maker: Arc<OnceLock<RoomMaker>>,
    /// Whose holds may be given back where room is short.
    spare: Option<Arc<dyn Spare>>,
}

/// Makes room for so many bytes, or says what is in the way.
pub(crate) type RoomMaker = Box<dyn Fn(&Store, u64) -> Result<Room> + Send + Sync>;

/// Holds more than it needs, and knows what.
pub(crate) trait Spare: Send + Sync {
    /// Lets go of what is not needed any more; `false` if there was nothing.
    fn let_go(&self) -> Result<bool>;
}

/// Room that was made. Until it is dropped nobody else takes it.
pub struct Room {
    _lock: fs::File,
}

impl Store {
    /// Opens the state folder at `root`, making it if it is missing, and sweeps what killed
    /// processes left behind.
    ///
    /// # Errors
    /// If the folder cannot be made or written, or has another layout version.
    pub fn open(root: &Path) -> Result<Self> {
        let store = Self::open_as_it_is(root)?;
        let reserve = store.root.join(RESERVE);
        // On a full disk a part of it may have been written.
        if fs::metadata(&reserve).map_or(0, |facts| facts.len()) != RESERVE_SIZE as u64 {
            // Without it only cleaning up a full disk is harder.
            let _ = fs::write(&reserve, vec![0; RESERVE_SIZE]);
        }
        Ok(store)
    }

    fn open_as_it_is(root: &Path) -> Result<Self> {
        for part in ["layers", "blobs/sha256", "mounts", "contexts", "downloads", "logs", "tmp"] {
            let path = root.join(part);
            fs::create_dir_all(&path).map_err(StoreError::io("cannot create", &path))?;
        }
        let root = root.canonicalize().map_err(StoreError::io("cannot open", root))?;
        // SQLite would only say that it cannot open a file.
        rustix::fs::accessat(
            rustix::fs::CWD,
            &root,
            rustix::fs::Access::WRITE_OK,
            rustix::fs::AtFlags::EACCESS,
        )
        .map_err(|e| StoreError::io("cannot write to", &root)(e.into()))?;
        check_layout(&root, Missing::Write)?;
        let db = db::Db::open(&root.join("index.db"))?;
        session::sweep(&root.join("tmp"));
        let holds = hold::Holds::open(root.join(HOLDS))?;
        Ok(Self::with(root, db, holds))
    }

    /// As [`Store::open`], for those who free space: on a full disk even the index cannot be opened,
    /// so that what was put aside for this is given up. The next one to open the folder puts it aside
    /// again.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_to_free(root: &Path) -> Result<Self> {
        match Self::open(root) {
            Err(error) if error.is_unwritable() && fs::remove_file(root.join(RESERVE)).is_ok() => {
                Self::open_as_it_is(root)
            }
            other => other,
        }
    }

    /// As [`Store::open_to_free`], for those who repair: an index that is damaged is replaced by one
    /// with all that can be read of it. No other process should use the folder then.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_to_repair(root: &Path) -> Result<Self> {
        let index = root.join("index.db");
        // What is wrong with the disk is told when the folder is opened.
        let salvaged = match salvage::fault(&index).unwrap_or(None) {
            None => None,
            Some(fault) => {
                let rows = salvage::rebuild(&index)?;
                Some(format!("{fault}; {rows} rows were saved, the rest is in index.db.damaged"))
            }
        };
        Ok(Self { salvaged, ..Self::open_to_free(root)? })
    }

    /// What was wrong with the index when it was opened to be repaired.
    pub fn salvaged(&self) -> Option<&str> {
        self.salvaged.as_deref()
    }

    /// Opens the state folder at `root` without changing anything, for those who only look. It may
    /// lie on a read-only or full disk.
    ///
    /// # Errors
    /// If there is no state folder, or it cannot be read.
    pub fn open_read_only(root: &Path) -> Result<Self> {
        let root = root.canonicalize().map_err(StoreError::io("cannot open", root))?;
        check_layout(&root, Missing::Refuse)?;
        let db = db::Db::open_read_only(&root.join("index.db"))?;
        let holds = hold::Holds::open_read_only(root.join(HOLDS));
        Ok(Self::with(root, db, holds))
    }

    /// Most bytes that a layer from outside may unpack to.
    pub(crate) fn largest_layer(&self) -> u64 {
        self.largest_layer.load(Ordering::Relaxed)
    }

    /// Bounds layers from outside.
    pub(crate) fn bound_layers(&self, most: u64) {
        self.largest_layer.store(most, Ordering::Relaxed);
    }

    fn with(root: PathBuf, db: db::Db, holds: hold::Holds) -> Self {
        let session = Arc::new(session::Session::new(root.join("tmp")));
        let holds = Arc::new(holds);
        let db = Arc::new(db);
        let blobs = Blobs::new(root.join("blobs/sha256"), &session, &holds, &db);
        Self {
            root,
            db,
            blobs,
            session,
            holds,
            seen: Mutex::default(),
            salvaged: None,
            largest_layer: AtomicU64::new(u64::MAX),
            room_maker: Arc::default(),
            spare: None,
        }
    }

    /// The same state folder with holds of its own: what is looked up through it stays there until it
    /// is closed, whatever this one lets go of. Where room is short, `spare` is asked to let go.
    pub(crate) fn apart(&self, spare: Option<Arc<dyn Spare>>) -> Result<Self> {
        let holds = Arc::new(self.holds.apart()?);
        Ok(Self {
            root: self.root.clone(),
            db: Arc::clone(&self.db),
            blobs: Blobs::new(self.root.join("blobs/sha256"), &self.session, &holds, &self.db),
            session: Arc::clone(&self.session),
            holds,
            seen: Mutex::default(),
            salvaged: None,
            largest_layer: AtomicU64::new(self.largest_layer()),
            room_maker: Arc::clone(&self.room_maker),
            spare,
        })
    }

    /// For an evictor: takes what nobody uses, piece by piece.
    pub(crate) fn nothing_taken(&self) -> Result<Taken> {
        Taken::nothing(&self.root.join(HOLDS))
    }

    /// Waits until nobody else makes room or fills what was made; until the file is closed.
    pub(crate) fn lock_room(&self) -> Result<Room> {
        let path = self.root.join("room.lock");
        let file = lock::open_lock_file(&path)?;
        file.lock().map_err(StoreError::io("cannot lock", &path))?;
        Ok(Room { _lock: file })
    }

    /// From now on nothing is published that `maker` makes no room for. The first one counts.
    pub(crate) fn publish_with(&self, maker: RoomMaker) {
        let _ = self.room_maker.set(maker);
    }

    /// Makes room for so many bytes that are about to be published, if there is a limit.
    pub(crate) fn make_room(&self, bytes: u64) -> Result<Option<Room>> {
        self.room_maker.get().map(|maker| maker(self, bytes)).transpose()
    }

    /// Whether there is a limit.
    pub(crate) fn is_limited(&self) -> bool {
        self.room_maker.get().is_some()
    }

    /// Lets go of what whoever works through this one holds and does not need any more; `false` if
    /// there was nothing.
    pub(crate) fn let_go_of_spare(&self) -> Result<bool> {
        self.spare.as_ref().map_or(Ok(false), |spare| spare.let_go())
    }

    /// Lets go of all layers that were looked up but for those that are `needed`; `false` if there was
    /// nothing to let go of. Nobody may look up layers through this one at the same time.
    pub(crate) fn keep_only(&self, needed: &HashSet<&LayerId>) -> Result<bool> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let spare: Vec<LayerId> = seen.iter().filter(|id| !needed.contains(id)).cloned().collect();
        for id in &spare {
            seen.remove(id);
            self.holds.let_go_of(Held::Layer(id))?;
        }
        Ok(!spare.is_empty())
    }

    /// Lets go of all that this process holds. What it has looked up may vanish from now on.
    pub(crate) fn let_go(&self) -> Result<()> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.holds.let_go()
    }

    /// The folders of killed processes below `tmp/`.
    pub(crate) fn leftovers(&self) -> Vec<PathBuf> {
        session::leftovers(&self.root.join("tmp"))
    }

    /// The state folder's path, absolute.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The content-addressed blobs.
    pub fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    /// A new, empty folder below `tmp/` that is removed when the value is dropped.
    pub fn tmp_dir(&self) -> Result<TmpDir> {
        self.session.tmp_dir()
    }

    /// A folder of this process, gone with it, for what its steps share.
    pub fn steps_dir(&self) -> Result<PathBuf> {
        self.session.steps_dir()
    }

    /// The file with the stat index of a context folder.
    pub fn stat_index_path(&self, context: &Path) -> PathBuf {
        let name = rbc_ir::Digest::of(context.as_os_str().as_encoded_bytes()).hex();
        self.root.join("contexts").join(name)
    }

    /// The file with what is known of the file at an address.
    pub(crate) fn download_path(&self, url: &str) -> PathBuf {
        self.root.join("downloads").join(rbc_ir::Digest::of(url.as_bytes()).hex())
    }

    /// The folder for the logs of one build.
    pub fn log_dir(&self, build: &str) -> Result<PathBuf> {
        let path = self.root.join("logs").join(build);
        fs::create_dir_all(&path).map_err(StoreError::io("cannot create", &path))?;
        Ok(path)
    }

    /// Takes the lock on a cache key, so that of several processes one builds it. `None` while
    /// another process holds it.
    pub fn try_lock_key(&self, key: &rbc_ir::Digest) -> Result<Option<KeyLock>> {
        KeyLock::try_take(&self.root.join("keys.lock"), key)
    }
}

/// The file whose bytes stand for what processes use.
const HOLDS: &str = "holds.lock";

/// A file that only takes space, for [`Store::open_to_free`].
const RESERVE: &str = "reserve";
/// Enough for SQLite's log and its index in shared memory.
const RESERVE_SIZE: usize = 256 << 10;

/// What is done where the version file is missing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    /// It is a new folder.
    Write,
    /// It is no state folder.
    Refuse,
}

fn check_layout(root: &Path, missing: Missing) -> Result<()> {
    let path = root.join("version");
    match fs::read_to_string(&path) {
        Ok(found) if found == LAYOUT_VERSION => Ok(()),
        Ok(found) => {
            Err(StoreError::Layout { path: root.to_owned(), found: found.trim().to_owned() })
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound && missing == Missing::Write => {
            let staged = tempfile::NamedTempFile::new_in(root)
                .map_err(StoreError::io("cannot write in", root))?;
            fs::write(staged.path(), LAYOUT_VERSION)
                .map_err(StoreError::io("cannot write", staged.path()))?;
            // As the index: who may read the folder may look at what is in it.
            fs::set_permissions(staged.path(), fs::Permissions::from_mode(0o644))
                .map_err(StoreError::io("cannot write", staged.path()))?;
            staged.persist(&path).map_err(|e| StoreError::io("cannot write", &path)(e.error))?;
            Ok(())
        }
        Err(e) => Err(StoreError::io("cannot read", &path)(e)),
    }
}

#[cfg(test)]
mod tests;
