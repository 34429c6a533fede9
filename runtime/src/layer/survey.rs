//! What the layers of an image hold: the largest files of each, what layers above hide or remove,
//! and content that is there more than once.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

use rbc_ir::Digest;

use super::{LayerError, OPAQUE, Size, same::is_whiteout, write::has_xattr};
use crate::tree::content_digest;

/// How many files are named of each kind.
const NAMED: usize = 10;
/// More entries than this are not looked at.
const MAX_ENTRIES: u64 = 1_000_000;
/// Smaller files are not compared: they weigh little.
const MIN_DUPLICATE: u64 = 4096;
/// Bytes that are read to find duplicates.
const MAX_READ: u64 = 2 << 30;

/// What a stack of layers holds.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Survey {
    /// The layers, lowest first.
    pub layers: Vec<LayerSurvey>,
    /// Content of which the image holds several files, by the bytes that could be saved.
    pub duplicates: Vec<Duplicate>,
    /// Whether there were too many files to look at all.
    pub is_partial: bool,
}

/// What one layer holds.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct LayerSurvey {
    /// All of it.
    pub size: Size,
    /// The largest files, with bytes.
    pub largest: Vec<(PathBuf, u64)>,
    /// Files that a later layer hides or removes, the largest ones.
    pub lost: Vec<Lost>,
    /// Bytes of all such files.
    pub lost_bytes: u64,
}

/// A file that is in a layer but not in the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Where it is.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// Index of the layer that hides or removes it.
    pub by: usize,
}

/// Equal files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Duplicate {
    /// Length of each.
    pub bytes: u64,
    /// Where they are: index of the layer, and path.
    pub places: Vec<(usize, PathBuf)>,
}

/// A file that is visible so far.
struct Alive {
    layer: usize,
    bytes: u64,
    inode: (u64, u64),
}

/// Looks at the layer folders of an image, lowest first.
///
/// # Errors
/// If a folder cannot be read.
pub fn survey(dirs: &[PathBuf]) -> Result<Survey, LayerError> {
    let (mut survey, alive) = walk(dirs)?;
    find_duplicates(&mut survey, &alive, dirs)?;
    Ok(survey)
}

/// Looks at a single layer folder, without reading any file.
///
/// # Errors
/// If a folder cannot be read.
pub fn survey_one(dir: &Path) -> Result<LayerSurvey, LayerError> {
    let (mut survey, _) = walk(&[dir.to_owned()])?;
    Ok(survey.layers.pop().unwrap_or_default())
}

/// Everything but the duplicates, and the files that are visible in the end.
fn walk(dirs: &[PathBuf]) -> Result<(Survey, BTreeMap<PathBuf, Alive>), LayerError> {
    let mut survey = Survey::default();
    let mut alive: BTreeMap<PathBuf, Alive> = BTreeMap::new();
    let mut seen = 0;
    'layers: for (at, dir) in dirs.iter().enumerate() {
        survey.layers.push(LayerSurvey::default());
        let mut pending = vec![PathBuf::new()];
        while let Some(folder) = pending.pop() {
            let host = dir.join(&folder);
            if has_xattr(&host, OPAQUE) {
                lose(&mut alive, &mut survey.layers, &folder, at);
            }
            for entry in fs::read_dir(&host).map_err(LayerError::io(&host))? {
                let entry = entry.map_err(LayerError::io(&host))?;
                let path = folder.join(entry.file_name());
                let facts = entry.metadata().map_err(LayerError::io(&entry.path()))?;
                seen += 1;
                if seen > MAX_ENTRIES {
                    survey.is_partial = true;
                    break 'layers;
                }
                let layer = &mut survey.layers[at];
                if is_whiteout(&facts) {
                    lose(&mut alive, &mut survey.layers, &path, at);
                    continue;
                }
                layer.size.files += 1;
                if facts.is_dir() {
                    // A folder in place of a file.
                    if alive.contains_key(&path) {
                        lose(&mut alive, &mut survey.layers, &path, at);
                    }
                    pending.push(path);
                    continue;
                }
                let bytes = if facts.is_file() { facts.len() } else { 0 };
                layer.size.bytes += bytes;
                if facts.is_file() {
                    layer.largest.push((path.clone(), bytes));
                    if layer.largest.len() > 50 * NAMED {
                        keep_largest(&mut layer.largest, |(path, bytes)| (*bytes, path.clone()));
                    }
                }
                lose(&mut alive, &mut survey.layers, &path, at);
                let inode = (facts.dev(), facts.ino());
                alive.insert(path, Alive { layer: at, bytes, inode });
            }
        }
    }
    for layer in &mut survey.layers {
        keep_largest(&mut layer.largest, |(path, bytes)| (*bytes, path.clone()));
        keep_largest(&mut layer.lost, |lost| (lost.bytes, lost.path.clone()));
    }
    Ok((survey, alive))
}

/// Takes `path` and all below it from what is visible, as far as it is from layers below `by`.
fn lose(alive: &mut BTreeMap<PathBuf, Alive>, layers: &mut [LayerSurvey], path: &Path, by: usize) {
    let below = alive.range(path.to_owned()..).take_while(|(at, _)| at.starts_with(path));
    let gone: Vec<PathBuf> =
        below.filter(|(_, file)| file.layer < by).map(|(at, _)| at.clone()).collect();
    for path in gone {
        let Some(file) = alive.remove(&path) else { continue };
        let layer = &mut layers[file.layer];
        layer.lost_bytes += file.bytes;
        layer.lost.push(Lost { path, bytes: file.bytes, by });
        if layer.lost.len() > 50 * NAMED {
            keep_largest(&mut layer.lost, |lost| (lost.bytes, lost.path.clone()));
        }
    }
}

/// Keeps the first few, the largest first.
fn keep_largest<T>(items: &mut Vec<T>, key: impl Fn(&T) -> (u64, PathBuf)) {
    items.sort_by_cached_key(|item| {
        let (bytes, path) = key(item);
        (std::cmp::Reverse(bytes), path)
    });
    items.truncate(NAMED);
}

fn find_duplicates(
    survey: &mut Survey,
    alive: &BTreeMap<PathBuf, Alive>,
    dirs: &[PathBuf],
) -> Result<(), LayerError> {
    let mut by_size: HashMap<u64, Vec<(&PathBuf, &Alive)>> = HashMap::new();
    for (path, file) in alive.iter().filter(|(_, file)| file.bytes >= MIN_DUPLICATE) {
        by_size.entry(file.bytes).or_default().push((path, file));
    }
    let mut groups: Vec<_> = by_size.into_iter().filter(|(_, files)| files.len() > 1).collect();
    groups.sort_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
    let mut read = 0;
    for (bytes, files) in groups {
        let mut digests: HashMap<(u64, u64), Digest> = HashMap::new();
        let mut equal: BTreeMap<Digest, Vec<(usize, PathBuf)>> = BTreeMap::new();
        for (path, file) in files {
            let digest = match digests.get(&file.inode) {
                Some(digest) => *digest,
                None => {
                    read += bytes;
                    if read > MAX_READ {
                        survey.is_partial = true;
                        break;
                    }
                    let host = dirs[file.layer].join(path);
                    let opened = File::open(&host).and_then(|mut file| content_digest(&mut file));
                    let digest = opened.map_err(LayerError::io(&host))?;
                    digests.insert(file.inode, digest);
                    digest
                }
            };
            equal.entry(digest).or_default().push((file.layer, path.clone()));
        }
        let several = equal.into_values().filter(|places| places.len() > 1);
        survey.duplicates.extend(several.map(|places| Duplicate { bytes, places }));
    }
    let cost = |one: &Duplicate| one.bytes * (one.places.len() as u64 - 1);
    survey.duplicates.sort_by(|a, b| cost(b).cmp(&cost(a)).then_with(|| a.places.cmp(&b.places)));
    survey.duplicates.truncate(2 * NAMED);
    Ok(())
}

/// Text of a path, for people.
pub fn shown(path: &Path) -> String {
    format!("/{}", String::from_utf8_lossy(path.as_os_str().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::mark_opaque;

    fn write(dir: &Path, path: &str, data: &[u8]) {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, data).unwrap();
    }

    #[test]
    fn hidden_removed_and_equal_files_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let dirs: Vec<PathBuf> = ["0", "1", "2"].map(|name| dir.path().join(name)).to_vec();
        let big = vec![7; 5000];
        write(&dirs[0], "a", &[1; 100]);
        write(&dirs[0], "cache/x", &[2; 300]);
        write(&dirs[0], "cache/y", &[2; 200]);
        write(&dirs[0], "old/deep/z", &[3; 50]);
        write(&dirs[1], "a", &[1; 10]);
        write(&dirs[1], "one", &big);
        write(&dirs[2], "two", &big);
        fs::create_dir(dirs[1].join("cache")).unwrap();
        mark_opaque(&dirs[1].join("cache")).unwrap();
        let whiteout = dirs[2].join("old");
        let mode = rustix::fs::Mode::from_raw_mode(0);
        let kind = rustix::fs::FileType::CharacterDevice;
        rustix::fs::mknodat(rustix::fs::CWD, &whiteout, kind, mode, 0).unwrap();

        let survey = survey(&dirs).unwrap();
        let lost: Vec<(String, u64, usize)> = survey.layers[0]
            .lost
            .iter()
            .map(|lost| (shown(&lost.path), lost.bytes, lost.by))
            .collect();
        let want =
            [("/cache/x", 300, 1), ("/cache/y", 200, 1), ("/a", 100, 1), ("/old/deep/z", 50, 2)];
        assert_eq!(lost, want.map(|(path, bytes, by)| (path.to_owned(), bytes, by)));
        assert_eq!(survey.layers[0].lost_bytes, 650);
        assert_eq!(survey.layers[1].largest[0], ("one".into(), 5000));
        let size = survey.layers[1].size;
        assert_eq!((size.files, size.bytes), (3, 5010));
        let places = vec![(1, "one".into()), (2, "two".into())];
        assert_eq!(survey.duplicates, [Duplicate { bytes: 5000, places }]);
    }
}
