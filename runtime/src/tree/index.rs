//! Remembers content digests of files by the facts of their inodes, in one flat file.
//!
//! A digest is found again only while device, inode, size, permission bits, mtime and ctime are the
//! same. A file that was changed at about the time when it was read may change once more without
//! any of these telling, so such a file is not recorded.
//!
//! Format: [`MAGIC`], then records of [`RECORD`] bytes (numbers in little endian, then the digest) in
//! the order of devices and inodes, then the SHA-256 of all before. A file that is damaged in any way
//! is an empty index.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
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
#[derive(Debug)]
pub struct StatIndex {
    file: Option<PathBuf>,
    /// What the file had when it was first needed.
    kept: OnceLock<Kept>,
    /// What is known beyond that.
    fresh: Mutex<HashMap<Key, Record>>,
    /// Whether anything is to be kept that the file does not have.
    changed: AtomicBool,
    /// The day of this process, in days since the epoch.
    today: u32,
}

/// Device and inode.
type Key = (u64, u64);

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
    /// The index in `file`, which is read when it is first asked. One that is missing or damaged is
    /// empty.
    pub fn load(file: &Path) -> Self {
        Self::new(Some(file.to_owned()))
    }

    fn new(file: Option<PathBuf>) -> Self {
        Self {
            file,
            kept: OnceLock::new(),
            fresh: Mutex::default(),
            changed: AtomicBool::new(false),
            today: today(),
        }
    }

    /// Whether a file is an index that can be read.
    pub fn is_intact(file: &Path) -> bool {
        fs::read(file).is_ok_and(|bytes| Kept::decode(bytes).is_some())
    }

    /// Reads the file now, for those who can do something else meanwhile.
    pub(crate) fn read(&self) {
        self.kept();
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
        let mut records: BTreeMap<Key, Record> = self.kept().iter().collect();
        records.extend(self.fresh().iter().map(|(key, record)| (*key, *record)));
        temporary.write_all(&encode(&records, self.today))?;
        temporary.persist(file)?;
        Ok(())
    }

    fn kept(&self) -> &Kept {
        self.kept.get_or_init(|| {
            let bytes = self.file.as_ref().and_then(|file| fs::read(file).ok());
            let kept = bytes.and_then(Kept::decode).unwrap_or_default();
            self.changed.fetch_or(kept.is_sorted_anew, Ordering::Relaxed);
            kept
        })
    }

    fn fresh(&self) -> MutexGuard<'_, HashMap<Key, Record>> {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for StatIndex {
    fn default() -> Self {
        Self::new(None)
    }
}

impl ContentHashes for StatIndex {
    fn get(&self, entry: &Entry) -> Option<Digest> {
        let facts = Facts::of(entry);
        // Without a lock, as this is nearly all that is asked where nothing changed.
        match self.kept().find(entry.inode).filter(|record| record.facts == facts) {
            Some(record) if record.day == self.today => Some(record.digest),
            Some(record) => {
                self.fresh().insert(entry.inode, Record { day: self.today, ..record });
                self.changed.store(true, Ordering::Relaxed);
                Some(record.digest)
            }
            None => {
                let fresh = self.fresh();
                let record = fresh.get(&entry.inode).filter(|record| record.facts == facts)?;
                Some(record.digest)
            }
        }
    }

    fn put(&self, entry: &Entry, read_at: SystemTime, digest: Digest) {
        if is_racy(entry, read_at) {
            return;
        }
        let record = Record { facts: Facts::of(entry), day: self.today, digest };
        self.fresh().insert(entry.inode, record);
        self.changed.store(true, Ordering::Relaxed);
    }
}

/// The content of a file whose sum is right, searched as it is.
#[derive(Debug, Default)]
struct Kept {
    bytes: Vec<u8>,
    /// Whether the file has them in another order.
    is_sorted_anew: bool,
}

impl Kept {
    /// `None` for a file that is damaged.
    fn decode(mut bytes: Vec<u8>) -> Option<Self> {
        let (content, sum) = bytes.split_last_chunk::<32>()?;
        let records = content.strip_prefix(MAGIC)?;
        if records.len() % RECORD != 0 || Digest::of(content).as_bytes() != sum {
            return None;
        }
        // An older rbc wrote them in no order.
        let is_sorted_anew = !records.chunks_exact(RECORD).map(key_of).is_sorted();
        if is_sorted_anew {
            let mut sorted: Vec<&[u8]> = records.chunks_exact(RECORD).collect();
            sorted.sort_by_key(|record| key_of(record));
            bytes = [MAGIC.as_slice(), &sorted.concat(), &[0; 32]].concat();
        }
        Some(Self { bytes, is_sorted_anew })
    }

    fn records(&self) -> &[u8] {
        let end = self.bytes.len().saturating_sub(32);
        self.bytes.get(MAGIC.len()..end).unwrap_or_default()
    }

    fn iter(&self) -> impl Iterator<Item = (Key, Record)> {
        self.records().chunks_exact(RECORD).map(|bytes| (key_of(bytes), Record::decode(bytes)))
    }

    fn find(&self, key: Key) -> Option<Record> {
        let records = self.records();
        let (mut low, mut high) = (0, records.len() / RECORD);
        while low < high {
            let middle = low.midpoint(high);
            let record = &records[middle * RECORD..(middle + 1) * RECORD];
            match key_of(record).cmp(&key) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Some(Record::decode(record)),
            }
        }
        None
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

fn encode(records: &BTreeMap<Key, Record>, today: u32) -> Vec<u8> {
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

/// The bytes of a record from `at` on.
fn field<const N: usize>(record: &[u8], at: usize) -> [u8; N] {
    record.get(at..).and_then(|bytes| bytes.first_chunk()).copied().unwrap_or([0; N])
}

fn key_of(record: &[u8]) -> Key {
    (u64::from_le_bytes(field(record, 0)), u64::from_le_bytes(field(record, 8)))
}

impl Record {
    fn decode(bytes: &[u8]) -> Self {
        let number = |at: usize| u64::from_le_bytes(field(bytes, at * 8));
        let nanos = number(5);
        let facts = Facts {
            size: number(2),
            mode: u32::from_le_bytes(field(bytes, 48)),
            mtime: (number(3).cast_signed(), (nanos >> 32) as u32),
            ctime: (number(4).cast_signed(), nanos as u32),
        };
        let day = u32::from_le_bytes(field(bytes, 52));
        Self { facts, day, digest: Digest::from_bytes(field(bytes, 56)) }
    }
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

    fn decode(bytes: &[u8]) -> Option<BTreeMap<Key, Record>> {
        Kept::decode(bytes.to_vec()).map(|kept| kept.iter().collect())
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
    fn records_in_no_order_are_found() {
        let record =
            |day| Record { facts: Facts::of(&entry(1, (1, 1))), day, digest: Digest::of(b"") };
        let keys = [(2, 1), (1, 9), (1, 300), (1, 2), (3, 0)];
        let records: BTreeMap<Key, Record> = keys.into_iter().zip((1..).map(record)).collect();
        let mut bytes = encode(&records, 1);
        let ordered = bytes.clone();
        let end = bytes.len() - 32;
        bytes[MAGIC.len()..end].reverse();
        for chunk in bytes[MAGIC.len()..end].chunks_exact_mut(RECORD) {
            chunk.reverse();
        }
        let sum = Digest::of(&bytes[..end]);
        bytes[end..].copy_from_slice(sum.as_bytes());
        assert_ne!(bytes, ordered);
        for bytes in [bytes, ordered] {
            let kept = Kept::decode(bytes).expect("intact");
            for (key, record) in &records {
                assert_eq!(kept.find(*key), Some(*record));
                assert_eq!(kept.find((key.0, key.1 + 1000)), None);
            }
        }
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
        let records = BTreeMap::from([((1, 1), record)]);
        assert_eq!(decode(&encode(&records, 130)), Some(records.clone()));
        assert_eq!(decode(&encode(&records, 131)), Some(BTreeMap::new()));
    }

    proptest! {
        #[test]
        fn damaged_files_are_empty_indexes(position in 0_usize..500, bit in 0_u32..8, cut in 0_usize..500) {
            let record = Record { facts: Facts::of(&entry(1, (1, 1))), day: 1, digest: Digest::of(b"x") };
            let records = BTreeMap::from([((1, 1), record), ((1, 2), record)]);
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
