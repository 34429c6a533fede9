//! Tells whether two layers are the same.

use std::{
    collections::HashMap,
    fs::{self, File, Metadata},
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use rayon::prelude::*;

use super::{
    LayerError, OPAQUE, owner,
    write::{has_xattr, is_made, sorted_names},
};
use crate::tree::{Xattrs, read_xattrs, same_bytes};

/// Whether two layer folders stand for the same layer: images made of either are the same bit for
/// bit, whatever their time. Stops at the first difference, of which most are found without reading
/// any file; files that both share are not read at all.
///
/// With `at_most`, folders of more entries are taken for different without a look.
pub fn same_layer(one: &Path, other: &Path, at_most: Option<usize>) -> Result<bool, LayerError> {
    if !same_facts((one, &facts(one)?), (other, &facts(other)?))? {
        return Ok(false);
    }
    let mut folders = vec![PathBuf::new()];
    let mut files: Vec<(u64, PathBuf)> = Vec::new();
    let mut links: [HashMap<(u64, u64), PathBuf>; 2] = Default::default();
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        let names = sorted_names(&below(one, &folder))?;
        seen += names.len();
        if at_most.is_some_and(|most| seen > most) || names != sorted_names(&below(other, &folder))?
        {
            return Ok(false);
        }
        for name in names {
            let path = folder.join(name);
            let (a, b) = (one.join(&path), other.join(&path));
            let (a_facts, b_facts) = (facts(&a)?, facts(&b)?);
            if !same_facts((&a, &a_facts), (&b, &b_facts))? {
                return Ok(false);
            }
            if a_facts.is_dir() {
                folders.push(path);
                continue;
            }
            let [ones, others] = &mut links;
            let first = first_name(ones, &a_facts, &path);
            if first != first_name(others, &b_facts, &path) {
                return Ok(false);
            }
            let shared = (a_facts.dev(), a_facts.ino()) == (b_facts.dev(), b_facts.ino());
            if a_facts.is_file() && first == path && !shared {
                files.push((a_facts.len(), path));
            }
        }
    }
    // A difference in a small file is found soonest.
    files.sort_unstable();
    let differ = files.par_iter().find_map_any(|(_, path)| {
        match same_file(&one.join(path), &other.join(path)) {
            Ok(true) => None,
            Ok(false) => Some(Ok(())),
            Err(error) => Some(Err(error)),
        }
    });
    match differ {
        None => Ok(true),
        Some(Ok(())) => Ok(false),
        Some(Err(error)) => Err(error),
    }
}

/// A path below a root, without the slash that joining nothing would add.
fn below(root: &Path, path: &Path) -> PathBuf {
    if path.as_os_str().is_empty() { root.to_owned() } else { root.join(path) }
}

fn facts(path: &Path) -> Result<Metadata, LayerError> {
    fs::symlink_metadata(path).map_err(LayerError::io(path))
}

fn xattrs(path: &Path) -> Result<Xattrs, LayerError> {
    read_xattrs(path).map_err(LayerError::io(path))
}

/// Overlayfs makes many whiteouts of one inode, whose time and number of names say nothing.
pub(super) fn is_whiteout(facts: &Metadata) -> bool {
    facts.file_type().is_char_device() && facts.rdev() == 0
}

/// The first name under which a file was met.
fn first_name(known: &mut HashMap<(u64, u64), PathBuf>, facts: &Metadata, path: &Path) -> PathBuf {
    if facts.nlink() == 1 || is_whiteout(facts) {
        return path.to_owned();
    }
    known.entry((facts.dev(), facts.ino())).or_insert_with(|| path.to_owned()).clone()
}

/// Whether all but the content of files is the same.
fn same_facts(one: (&Path, &Metadata), other: (&Path, &Metadata)) -> Result<bool, LayerError> {
    let ((a_path, a), (b_path, b)) = (one, other);
    if (a.dev(), a.ino()) == (b.dev(), b.ino()) {
        return Ok(true);
    }
    let kind = a.file_type();
    if is_whiteout(a) && is_whiteout(b) {
        return Ok(true);
    }
    let time = |facts: &Metadata| (!is_made(facts)).then(|| facts.mtime());
    if kind != b.file_type() || a.mode() != b.mode() || time(a) != time(b) {
        return Ok(false);
    }
    let ids = |path: &Path, facts: &Metadata| {
        owner::get(path, facts.uid(), facts.gid()).map_err(LayerError::io(path))
    };
    if ids(a_path, a)? != ids(b_path, b)? {
        return Ok(false);
    }
    if kind.is_symlink() {
        let target = |path: &Path| fs::read_link(path).map_err(LayerError::io(path));
        return Ok(target(a_path)? == target(b_path)?);
    }
    if kind.is_dir() {
        return Ok(has_xattr(a_path, OPAQUE) == has_xattr(b_path, OPAQUE)
            && xattrs(a_path)? == xattrs(b_path)?);
    }
    let same_size = !kind.is_file() || a.len() == b.len();
    let is_device = kind.is_char_device() || kind.is_block_device();
    Ok(same_size && (!is_device || a.rdev() == b.rdev()))
}

/// Whether two files of the same size have the same attributes and content.
fn same_file(one: &Path, other: &Path) -> Result<bool, LayerError> {
    if xattrs(one)? != xattrs(other)? {
        return Ok(false);
    }
    let open = |path: &Path| File::open(path).map_err(LayerError::io(path));
    same_bytes(open(one)?, open(other)?).map_err(LayerError::io(one))
}

#[cfg(test)]
mod tests {
    use std::{fs::FileTimes, os::unix::fs::PermissionsExt, time::SystemTime};

    use super::*;
    use crate::{layer::MADE_NSEC, tree::fixture::World};

    /// Sets the time of everything to that of the build, or of one file to another.
    fn set_time(path: &Path, time: SystemTime) {
        let times = FileTimes::new().set_modified(time);
        File::open(path).and_then(|file| file.set_times(times)).expect("times");
    }

    fn made(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + std::time::Duration::new(seconds, MADE_NSEC)
    }

    /// A layer whose plain files and folders were made by a build at a time.
    fn layer(world: &mut World, lines: &str, seconds: u64) -> PathBuf {
        let root = world.tree(lines);
        let mut pending = vec![root.clone()];
        while let Some(folder) = pending.pop() {
            for entry in fs::read_dir(&folder).expect("folder") {
                let entry = entry.expect("entry");
                let kind = entry.file_type().expect("kind");
                if kind.is_dir() {
                    pending.push(entry.path());
                } else if kind.is_file() {
                    set_time(&entry.path(), made(seconds));
                }
            }
            set_time(&folder, made(seconds));
        }
        root
    }

    const SAMPLE: &str = "d/f 644 0:0 = text\nd/g = x\nd/h => d/g\nd/gone !\nnew/ !";

    #[test]
    fn the_time_of_the_run_does_not_count() {
        let mut world = World::new();
        let (one, other) = (layer(&mut world, SAMPLE, 1_000), layer(&mut world, SAMPLE, 2_000));
        assert!(same_layer(&one, &other, None).expect("readable"));
        assert!(same_layer(&one, &other, Some(6)).expect("readable"));
        assert!(!same_layer(&one, &other, Some(5)).expect("readable"), "too many to look at");
    }

    #[test]
    fn whatever_an_image_shows_counts() {
        let base = "d/f 644 0:0 = text\nd/g = x\nd/h => d/g\nd/gone !\nnew/ !";
        let mut world = World::new();
        let one = layer(&mut world, base, 1_000);
        for (what, other) in [
            ("content", base.replace("text", "TEXT")),
            ("size", base.replace("text", "longer")),
            ("mode", base.replace("644", "600")),
            ("owner", base.replace("0:0", "1:0")),
            ("hard link", base.replace("=> d/g", "= x")),
            ("whiteout", base.replace("d/gone !", "d/gone = x")),
            ("opaque mark", base.replace("new/ !", "new/")),
            ("a file more", format!("{base}\nmore = 1")),
        ] {
            let other = layer(&mut world, &other, 1_000);
            assert!(!same_layer(&one, &other, None).expect("readable"), "{what}");
            assert!(!same_layer(&other, &one, None).expect("readable"), "{what}");
        }
        let changed = layer(&mut world, base, 1_000);
        set_time(&changed.join("d/f"), SystemTime::UNIX_EPOCH);
        assert!(!same_layer(&one, &changed, None).expect("readable"), "a time that was set");
        let changed = layer(&mut world, base, 1_000);
        fs::set_permissions(&changed, fs::Permissions::from_mode(0o700)).expect("mode");
        assert!(!same_layer(&one, &changed, None).expect("readable"), "the root");
    }
}
