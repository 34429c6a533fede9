//! Remembers content digests of files by the facts of their inodes, in one flat file.
//!
//! A digest is found again only while device, inode, size, permission bits, mtime and ctime are the
//! same. A file that was changed at about the time when it was read may change once more without
//! any of these telling, so such a file is not recorded.
//!
//! Format: [`MAGIC`], then records of [`RECORD`] bytes (numbers in little endian, then the digest),
//! then the SHA-256 of all before. A file that is damaged in any way is an empty index.

use std::{
    collections::HashMap,
    fs,
    io::{self, Write},
    path::Path,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rbc_ir::Digest;

use super::{ContentHashes, Entry};

/// The first bytes of an index; the last character is the version.
const MAGIC: &[u8; 16] = b"rbc stat index 1";
/// Length of a record.
const RECORD: usize = 8 * 6 + 4 + 4 + 32;
/// A change this shortly before a file was read may be followed by one that leaves the same times.
/// Kernels count file times in ticks of up to 10 ms.
const RACY: Duration = Duration::from_millis(50);
/// The same for file systems that keep whole or even seconds.
const RACY_COARSE: Duration = Duration::from_secs(3);
/// What was not asked for in so many days is dropped when the index is saved.
const KEEP_DAYS: u32 = 30;

/// A file-backed [`ContentHashes`].
#[derive(Debug, Default)]
pub struct StatIndex {
    known: Mutex<HashMap<(u64, u64), Record>>,
    /// Whether anything is to be kept that the file does not have.
    changed: AtomicBool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record {
    facts: Facts,
    /// When it was last asked for, in days since the epoch.
    day: u32,
    digest: Digest,
}

/// The facts by which a file is known to be unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Facts {
    size: u64,
    mode: u32,
    mtime: (i64, u32),
    ctime: (i64, u32),
}

impl StatIndex {
    /// Reads an index. One that is missing or damaged is empty.
    pub fn load(file: &Path) -> Self {
        let records = fs::read(file).ok().and_then(|bytes| decode(&bytes)).unwrap_or_default();
        Self { known: Mutex::new(records), changed: AtomicBool::new(false) }
    }

    /// Whether a file is an index that can be read.
    pub fn is_intact(file: &Path) -> bool {
        fs::read(file).is_ok_and(|bytes| decode(&bytes).is_some())
    }

    /// Writes the index to `file`, which is replaced at once or not at all, if there is anything
    /// new in it.
    pub fn save(&self, file: &Path) -> io::Result<()> {
        if !self.changed.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        let folder =
            file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut temporary = tempfile::NamedTempFile::new_in(folder)?;
        temporary.write_all(&encode(&self.records(), today()))?;
        temporary.persist(file)?;
        Ok(())
    }

    fn records(&self) -> MutexGuard<'_, HashMap<(u64, u64), Record>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ContentHashes for StatIndex {
    fn get(&self, entry: &Entry) -> Option<Digest> {
        let mut records = self.records();
        let record =
            records.get_mut(&entry.inode).filter(|record| record.facts == Facts::of(entry))?;
        let today = today();
        if record.day != today {
            record.day = today;
            self.changed.store(true, Ordering::Relaxed);
        }
        Some(record.digest)
    }

    fn put(&self, entry: &Entry, read_at: SystemTime, digest: Digest) {
        if is_racy(entry, read_at) {
            return;
        }
        let record = Record { facts: Facts::of(entry), day: today(), digest };
        self.records().insert(entry.inode, record);
        self.changed.store(true, Ordering::Relaxed);
    }
}

impl Facts {
    fn of(entry: &Entry) -> Self {
        Self { size: entry.size, mode: entry.mode, mtime: entry.mtime, ctime: entry.ctime }
    }
}

/// Whether the file was changed so shortly before it was read that a later change may not show.
fn is_racy(entry: &Entry, read_at: SystemTime) -> bool {
    let margin = if entry.ctime.1 == 0 { RACY_COARSE } else { RACY };
    let Ok(read_at) = read_at.duration_since(UNIX_EPOCH) else { return true };
    let limit = read_at.saturating_sub(margin);
    let after = |(seconds, nanos): (i64, u32)| {
        u64::try_from(seconds).is_ok_and(|seconds| Duration::new(seconds, nanos) >= limit)
    };
    after(entry.ctime) || after(entry.mtime)
}

fn today() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs() / 86_400).unwrap_or(u32::MAX)
}

fn encode(records: &HashMap<(u64, u64), Record>, today: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(MAGIC.len() + records.len() * RECORD + 32);
    out.extend(MAGIC);
    for ((device, inode), record) in records {
        if record.day.saturating_add(KEEP_DAYS) < today {
            continue;
        }
        let facts = &record.facts;
        let times = [facts.mtime.0.cast_unsigned(), facts.ctime.0.cast_unsigned()];
        let nanos = u64::from(facts.mtime.1) << 32 | u64::from(facts.ctime.1);
        for number in [*device, *inode, facts.size, times[0], times[1], nanos] {
            out.extend(number.to_le_bytes());
        }
        out.extend(facts.mode.to_le_bytes());
        out.extend(record.day.to_le_bytes());
        out.extend(record.digest.as_bytes());
    }
    let sum = Digest::of(&out);
    out.extend(sum.as_bytes());
    out
}

fn decode(bytes: &[u8]) -> Option<HashMap<(u64, u64), Record>> {
    let (content, sum) = bytes.split_last_chunk::<32>()?;
    let records = content.strip_prefix(MAGIC)?;
    if records.len() % RECORD != 0 || Digest::of(content).as_bytes() != sum {
        return None;
    }
    records.chunks_exact(RECORD).map(decode_record).collect()
}

fn decode_record(bytes: &[u8]) -> Option<((u64, u64), Record)> {
    let (numbers, rest) = bytes.split_at(48);
    let number = |at: usize| Some(u64::from_le_bytes(*numbers.get(at * 8..)?.first_chunk()?));
    let nanos = number(5)?;
    let facts = Facts {
        size: number(2)?,
        mode: u32::from_le_bytes(*rest.first_chunk()?),
        mtime: (number(3)?.cast_signed(), (nanos >> 32) as u32),
        ctime: (number(4)?.cast_signed(), nanos as u32),
    };
    let day = u32::from_le_bytes(*rest.get(4..)?.first_chunk()?);
    let digest = Digest::from_bytes(*rest.get(8..)?.first_chunk()?);
    Some(((number(0)?, number(1)?), Record { facts, day, digest }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(inode: u64, mtime: (i64, u32)) -> Entry {
        Entry { inode: (1, inode), size: 3, mtime, ctime: mtime, ..Entry::empty_root() }
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn digests_survive_saving_and_only_fit_unchanged_files() {
        let dir = tempfile::tempdir().expect("folder");
        let file = dir.path().join("index");
        let index = StatIndex::load(&file);
        let digest = Digest::of(b"abc");
        index.put(&entry(7, (100, 5)), at(200), digest);
        index.save(&file).expect("save");

        let loaded = StatIndex::load(&file);
        assert_eq!(loaded.get(&entry(7, (100, 5))), Some(digest));
        assert_eq!(loaded.get(&entry(7, (100, 6))), None);
        assert_eq!(loaded.get(&entry(8, (100, 5))), None);
        assert_eq!(loaded.get(&Entry { size: 4, ..entry(7, (100, 5)) }), None);
        assert_eq!(loaded.get(&Entry { mode: 0o700, ..entry(7, (100, 5)) }), None);
    }

    #[test]
    fn an_unchanged_index_is_not_written() {
        let dir = tempfile::tempdir().expect("folder");
        let file = dir.path().join("index");
        let index = StatIndex::load(&file);
        index.put(&entry(7, (100, 5)), at(200), Digest::of(b"abc"));
        index.save(&file).expect("save");

        let loaded = StatIndex::load(&file);
        assert!(loaded.get(&entry(7, (100, 5))).is_some());
        fs::remove_file(&file).expect("remove");
        loaded.save(&file).expect("nothing to save");
        assert!(!file.exists());
        loaded.put(&entry(8, (100, 5)), at(200), Digest::of(b"abc"));
        loaded.save(&file).expect("save");
        assert!(StatIndex::load(&file).get(&entry(7, (100, 5))).is_some());
    }

    #[test]
    fn an_edit_that_leaves_size_and_mtime_is_noticed() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("file");
        let facts = || {
            let file = fs::File::open(&path).expect("open");
            Entry::from_stat(&rustix::fs::fstat(&file).expect("stat"))
        };
        let index = StatIndex::default();
        fs::write(&path, "one").expect("write");
        let before = facts();
        let mtime = fs::metadata(&path).and_then(|facts| facts.modified()).expect("mtime");
        // Read in the same moment: the next edit may leave all times as they are.
        index.put(&before, SystemTime::now(), Digest::of(b"one"));
        assert_eq!(index.get(&before), None, "an edit at the time of reading");
        // Read much later, so recorded; then changed and given its old mtime back.
        index.put(&before, SystemTime::now() + Duration::from_secs(60), Digest::of(b"one"));
        assert!(index.get(&before).is_some());
        std::thread::sleep(RACY);
        fs::write(&path, "two").expect("write");
        let times = fs::FileTimes::new().set_modified(mtime);
        fs::File::options().write(true).open(&path).and_then(|f| f.set_times(times)).expect("time");
        let after = facts();
        assert_eq!((after.size, after.mtime), (before.size, before.mtime));
        assert_eq!(index.get(&after), None, "its ctime tells");
    }

    #[test]
    fn files_changed_just_before_they_were_read_are_not_recorded() {
        for (changed, recorded) in
            [((100, 1), true), ((199, 990_000_000), false), ((300, 1), false), ((198, 0), false)]
        {
            let index = StatIndex::default();
            index.put(&entry(1, changed), at(200), Digest::of(b""));
            assert_eq!(index.get(&entry(1, changed)).is_some(), recorded, "{changed:?}");
        }
    }

    #[test]
    fn what_was_not_used_for_long_is_dropped() {
        let record =
            Record { facts: Facts::of(&entry(1, (1, 1))), day: 100, digest: Digest::of(b"") };
        let records = HashMap::from([((1, 1), record)]);
        assert_eq!(decode(&encode(&records, 130)), Some(records.clone()));
        assert_eq!(decode(&encode(&records, 131)), Some(HashMap::new()));
    }

    proptest! {
        #[test]
        fn damaged_files_are_empty_indexes(position in 0_usize..500, bit in 0_u32..8, cut in 0_usize..500) {
            let record = Record { facts: Facts::of(&entry(1, (1, 1))), day: 1, digest: Digest::of(b"x") };
            let records = HashMap::from([((1, 1), record), ((1, 2), record)]);
            let good = encode(&records, 1);
            let mut bad = good.clone();
            let position = position % bad.len();
            bad[position] ^= 1 << bit;
            prop_assert_eq!(decode(&bad), None);
            prop_assert_eq!(decode(&good[..cut % good.len()]), None);
            prop_assert_eq!(decode(&good), Some(records));
        }
    }
}
