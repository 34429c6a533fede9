//! Records in the state folder: written whole or not at all, read with distrust, few.

use std::{
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rbc_ir::{Digest, Graph};

use super::{
    listing::{self, Listing},
    record::{Record, Status, Subject, VERSION},
};
use crate::store::{Store, StoreError, remove_tree};

/// How many builds are remembered.
pub const KEPT: usize = 100;
/// How many more there may be before the oldest ones are removed, so that not every build does it.
const SLACK: usize = 10;
/// The most bytes of listings that are kept. Beyond that the oldest ones go first.
const MAX_LISTINGS: u64 = 64 << 20;
/// A build without a record whose logs have not grown for so long has been killed.
const LONG_BUILD: Duration = Duration::from_secs(24 * 3600);
/// No record or graph that this version writes is larger.
const MAX_FILE: u64 = 512 << 20;

/// Why a past build cannot be shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HistoryError {
    /// Nothing was built yet.
    #[error("there is no record of any build in this state folder")]
    Empty,
    /// No build has this name.
    #[error("there is no record of a build {0:?}: see rbc history")]
    Unknown(String),
    /// Several builds have names that begin like this.
    #[error("several builds have names that begin with {0:?}: see rbc history")]
    Ambiguous(String),
    /// A record cannot be read.
    #[error("the record of build {id} cannot be used: {reason}")]
    Damaged {
        /// Name of the build.
        id: String,
        /// What is wrong.
        reason: String,
    },
    /// The state folder cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A past build.
#[derive(Clone, Debug)]
pub struct Past {
    /// What it did.
    pub record: Record,
    /// What it was to do.
    pub graph: Graph,
}

/// The records of a state folder.
#[derive(Clone, Copy)]
pub struct Builds<'a> {
    store: &'a Store,
}

impl<'a> Builds<'a> {
    /// Those of `store`.
    pub fn of(store: &'a Store) -> Self {
        Self { store }
    }

    fn dir(&self) -> PathBuf {
        self.store.root().join("builds")
    }

    fn listing_path(&self, digest: &Digest) -> PathBuf {
        self.dir().join("listings").join(digest.hex())
    }

    /// Names of the builds that have a record, newest first.
    pub fn ids(&self) -> Result<Vec<String>, HistoryError> {
        let mut ids = names(&self.dir())?;
        ids.retain(|id| id != "listings");
        ids.sort_unstable_by(|a, b| b.cmp(a));
        Ok(ids)
    }

    /// Names of all builds that something is known of, newest first: also of those that are still
    /// running and of those whose process was killed. Of these there are logs, but nothing that other
    /// builds could be compared with.
    pub fn all_ids(&self) -> Result<Vec<String>, HistoryError> {
        let mut ids = self.ids()?;
        let mut unfinished = names(&self.store.root().join("logs"))?;
        unfinished.retain(|id| self.unfinished_path(id).is_file() && !ids.contains(id));
        ids.extend(unfinished);
        ids.sort_unstable_by(|a, b| b.cmp(a));
        Ok(ids)
    }

    fn unfinished_path(&self, id: &str) -> PathBuf {
        self.log_dir(id).join("record.json")
    }

    /// The build that a user names: a name, the beginning of one, or `~N` for the Nth before the
    /// last; `~0` is the last.
    pub fn find(&self, name: &str) -> Result<String, HistoryError> {
        Self::find_in(&self.ids()?, name)
    }

    /// As [`Builds::find`], among [all builds](Builds::all_ids).
    pub fn find_any(&self, name: &str) -> Result<String, HistoryError> {
        Self::find_in(&self.all_ids()?, name)
    }

    fn find_in(ids: &[String], name: &str) -> Result<String, HistoryError> {
        if let Some(back) = name.strip_prefix('~') {
            let back = back.parse::<usize>().ok();
            return match back.and_then(|back| ids.get(back)) {
                Some(id) => Ok(id.clone()),
                None if ids.is_empty() => Err(HistoryError::Empty),
                None => Err(HistoryError::Unknown(name.to_owned())),
            };
        }
        let mut found = ids.iter().filter(|id| id.starts_with(name));
        match (found.next(), found.next()) {
            (Some(id), None) => Ok(id.clone()),
            (Some(id), Some(_)) if id == name => Ok(id.clone()),
            (Some(_), Some(_)) => Err(HistoryError::Ambiguous(name.to_owned())),
            (None, _) => Err(HistoryError::Unknown(name.to_owned())),
        }
    }

    /// What a build did, or what one that has not ended does.
    pub fn record(&self, id: &str) -> Result<Record, HistoryError> {
        let damaged = |reason: String| HistoryError::Damaged { id: id.to_owned(), reason };
        let path = self.dir().join(id).join("record.json");
        let unfinished = self.unfinished_path(id);
        // It ends in between, at the worst.
        let (is_running, bytes) = match read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                (is_locked(&unfinished), read(&unfinished).or_else(|_| read(&path)))
            }
            bytes => (false, bytes),
        };
        let bytes = bytes.map_err(|e| damaged(e.to_string()))?;
        let mut record: Record =
            serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
        if record.status == Status::Running && !is_running {
            record.status = Status::Killed;
        }
        match record.version {
            VERSION => Ok(record),
            other => Err(damaged(format!("it has version {other}, this rbc knows {VERSION}"))),
        }
    }

    /// Writes down what a build is about to do. The file that is given must be kept open as long as
    /// it runs.
    pub(super) fn write_unfinished(&self, record: &Record) -> Result<fs::File, HistoryError> {
        let place = self.store.log_dir(&record.id)?.join("record.json");
        let staged = self.store.tmp_dir()?;
        let new = staged.path().join("record.json");
        let json = serde_json::to_vec(record)
            .map_err(|e| HistoryError::Damaged { id: record.id.clone(), reason: e.to_string() })?;
        let write = || -> io::Result<fs::File> {
            let mut file = fs::File::create_new(&new)?;
            file.lock()?;
            file.write_all(&json)?;
            fs::rename(&new, &place)?;
            Ok(file)
        };
        Ok(write().map_err(StoreError::io("cannot write", &place))?)
    }

    /// What a build is of. It stands near the start of the record, so that the records of builds of
    /// other things, which may be large, need not be read.
    fn subject(&self, id: &str) -> Option<Subject> {
        const KEY: &str = "\"subject\":";
        let mut head = String::new();
        let file = fs::File::open(self.dir().join(id).join("record.json")).ok()?;
        file.take(64 << 10).read_to_string(&mut head).ok();
        let found = head
            .find(KEY)
            .map(|at| &head[at + KEY.len()..])
            .and_then(|text| serde_json::Deserializer::from_str(text).into_iter().next()?.ok());
        found.or_else(|| Some(self.record(id).ok()?.subject))
    }

    /// The graph of a build.
    pub fn graph(&self, id: &str) -> Result<Graph, HistoryError> {
        let damaged = |reason: String| HistoryError::Damaged { id: id.to_owned(), reason };
        let bytes = read(&self.dir().join(id).join("graph.bin"));
        let bytes = bytes.map_err(|e| damaged(e.to_string()))?;
        Graph::decode(&bytes).map_err(|e| damaged(e.to_string()))
    }

    /// A build with its graph.
    pub fn past(&self, id: &str) -> Result<Past, HistoryError> {
        Ok(Past { record: self.record(id)?, graph: self.graph(id)? })
    }

    /// The newest build before `id` of the same subject; if there is none, of the same Dockerfile
    /// and context. Records that cannot be read are passed over.
    pub fn earlier(&self, id: &str, subject: &Subject) -> Result<Option<Past>, HistoryError> {
        let mut near = None;
        for earlier in self.ids()?.iter().filter(|earlier| earlier.as_str() < id) {
            let Some(of) = self.subject(earlier) else { continue };
            let is_same = of == *subject;
            let is_near = of.dockerfile == subject.dockerfile && of.context == subject.context;
            if !is_same && (!is_near || near.is_some()) {
                continue;
            }
            let Ok(past) = self.past(earlier) else { continue };
            if is_same {
                return Ok(Some(past));
            }
            near = Some(past);
        }
        Ok(near)
    }

    /// The files behind the digests of an old and a new context selection, without those that are
    /// the same in both; if they are known.
    pub fn listings_apart(&self, old: &Digest, new: &Digest) -> Option<(Listing, Listing)> {
        let bytes = |digest| read(&self.listing_path(digest)).ok();
        listing::decode_apart(&bytes(old)?, &bytes(new)?)
    }

    /// The folder with the logs of a build.
    pub fn log_dir(&self, id: &str) -> PathBuf {
        self.store.root().join("logs").join(id)
    }

    /// Writes the record of a build that has ended.
    pub(super) fn write(&self, record: &Record, graph: &[u8]) -> Result<(), HistoryError> {
        let dir = self.dir();
        fs::create_dir_all(&dir).map_err(StoreError::io("cannot create", &dir))?;
        let staged = self.store.tmp_dir()?;
        let json = serde_json::to_vec(record)
            .map_err(|e| HistoryError::Damaged { id: record.id.clone(), reason: e.to_string() })?;
        for (name, bytes) in [("record.json", json.as_slice()), ("graph.bin", graph)] {
            let path = staged.path().join(name);
            fs::write(&path, bytes).map_err(StoreError::io("cannot write", &path))?;
        }
        let place = dir.join(&record.id);
        fs::rename(staged.path(), &place).map_err(StoreError::io("cannot write", &place))?;
        // Without effect where no command ran.
        let _ = fs::remove_file(self.unfinished_path(&record.id));
        let ids = self.ids()?;
        if ids.len() > KEPT + SLACK {
            self.keep(KEPT)?;
        }
        Ok(())
    }

    /// Writes the listing of a selection, or notes that it is still in use.
    pub(super) fn write_listing(
        &self,
        digest: &Digest,
        encode: impl FnOnce() -> Option<Vec<u8>>,
    ) -> Result<(), HistoryError> {
        let path = self.listing_path(digest);
        let now = rustix::fs::Timestamps {
            last_access: rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
            last_modification: rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW },
        };
        let flags = rustix::fs::AtFlags::empty();
        if rustix::fs::utimensat(rustix::fs::CWD, &path, &now, flags).is_ok() {
            return Ok(());
        }
        let Some(bytes) = encode() else { return Ok(()) };
        let dir = self.dir().join("listings");
        fs::create_dir_all(&dir).map_err(StoreError::io("cannot create", &dir))?;
        let staged = self.store.tmp_dir()?;
        let new = staged.path().join("listing");
        fs::write(&new, bytes).map_err(StoreError::io("cannot write", &new))?;
        fs::rename(&new, &path).map_err(StoreError::io("cannot write", &path))?;
        Ok(())
    }

    /// Forgets all but the newest `count` builds: records, logs, and listings that only older
    /// builds can have used. Gives how many builds were forgotten.
    pub fn keep(&self, count: usize) -> Result<usize, HistoryError> {
        let ids = self.ids()?;
        let (kept, old) = ids.split_at(count.min(ids.len()));
        for id in old {
            remove(&self.dir().join(id))?;
        }
        // Also logs of builds that were killed and left no record, but not those of builds that are
        // still running.
        let oldest = kept.last();
        let is_abandoned = |id: &str| {
            let changed = fs::metadata(self.log_dir(id)).and_then(|facts| facts.modified());
            let age = changed.ok().and_then(|changed| changed.elapsed().ok());
            oldest.is_some_and(|oldest| id < oldest.as_str()) && age.is_some_and(|a| a > LONG_BUILD)
        };
        for id in names(&self.store.root().join("logs"))? {
            if old.contains(&id) || is_abandoned(&id) {
                remove(&self.log_dir(&id))?;
            }
        }
        let begun = oldest.and_then(|oldest| {
            let facts = fs::metadata(self.dir().join(oldest).join("record.json")).ok()?;
            // Listings are written before the record that uses them.
            Some(facts.modified().ok()? - Duration::from_secs(3600))
        });
        self.keep_listings(begun)?;
        Ok(old.len())
    }

    /// Removes listings that were last used before a time, and the oldest ones beyond the limit.
    fn keep_listings(&self, since: Option<SystemTime>) -> Result<(), HistoryError> {
        let dir = self.dir().join("listings");
        let mut listings: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        for name in names(&dir)? {
            let path = dir.join(name);
            if let Ok(facts) = fs::metadata(&path)
                && let Ok(used) = facts.modified()
            {
                listings.push((used, facts.len(), path));
            }
        }
        listings.sort_unstable_by(|a, b| b.cmp(a));
        let mut total = 0_u64;
        for (used, size, path) in listings {
            total = total.saturating_add(size);
            if total > MAX_LISTINGS || since.is_none_or(|since| used < since) {
                match fs::remove_file(&path) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => {
                        return Err(StoreError::io("cannot remove", &path)(e).into());
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

/// Whether a process holds a file's lock.
fn is_locked(path: &Path) -> bool {
    let Ok(file) = fs::File::open(path) else { return false };
    matches!(file.try_lock_shared(), Err(fs::TryLockError::WouldBlock))
}

/// Removes a folder, which another process may be doing as well.
fn remove(path: &Path) -> Result<(), HistoryError> {
    match remove_tree(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(StoreError::io("cannot remove", path)(e).into())
        }
        _ => Ok(()),
    }
}

/// Names in a folder; none if it does not exist.
fn names(dir: &Path) -> Result<Vec<String>, HistoryError> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(StoreError::io("cannot read", dir))?,
    };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    Ok(names.collect())
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok(bytes)
}
