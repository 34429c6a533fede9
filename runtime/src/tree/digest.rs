//! Pins a selection by content.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use rayon::prelude::*;
use rbc_ir::{Digest, Hasher, Selection};
use sha2::Digest as _;

use super::{
    Entry, Filter, Kind, Role, Selected, SourceTree, TreeError, Walk, WalkItem, Xattrs,
    entry::read_xattrs_of, select, split_pivot, walk,
};
use crate::read_buffer;

/// Remembers digests of files, so that a file that did not change need not be read again.
pub trait ContentHashes: Sync {
    /// The digest recorded for a file with just these facts.
    fn get(&self, entry: &Entry) -> Option<Digest>;

    /// Records a digest. `read_at` is the time before the first byte was read.
    fn put(&self, entry: &Entry, read_at: std::time::SystemTime, digest: Digest);
}

/// Remembers nothing.
#[derive(Debug)]
pub struct NoHashes;

impl ContentHashes for NoHashes {
    fn get(&self, _entry: &Entry) -> Option<Digest> {
        None
    }

    fn put(&self, _entry: &Entry, _read_at: std::time::SystemTime, _digest: Digest) {}
}

/// How often a file that changes while it is read is tried.
const ATTEMPTS: u32 = 3;

/// What one selected path of a tree takes.
#[derive(Debug)]
pub struct SelectedPart {
    /// Where it starts in the tree.
    pub start: PathBuf,
    /// What is taken, with paths relative to the start.
    walk: Walk,
    /// The content of each item, folder by folder as in the walk.
    contents: Vec<Vec<ItemContent>>,
}

/// What of an entry is not in its metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ItemContent {
    /// Nothing.
    None,
    /// Content and attributes of a file, or attributes of a folder that has some.
    Digest(Digest),
    /// Where a symlink points.
    Target(PathBuf),
}

impl SelectedPart {
    /// The number of items.
    #[allow(clippy::len_without_is_empty, reason = "the start is always there")]
    pub fn len(&self) -> usize {
        self.walk.len()
    }

    /// What is taken with what it holds, parents before their entries and entries in the order of
    /// their names.
    pub fn iter(&self) -> impl Iterator<Item = (WalkItem<'_>, &ItemContent)> {
        let places = self.walk.places();
        places.map(|(folder, at)| (self.walk.item((folder, at)), &self.contents[folder][at]))
    }

    /// The path of an item in the tree.
    pub fn path_of(&self, item: &WalkItem<'_>) -> PathBuf {
        item.path_from(&self.start)
    }
}

/// The digest of all that a copy of the selection may depend on: path, type, permission bits, link
/// target, content and kept extended attributes of each entry, and which names are the same file;
/// neither owner nor times.
///
/// The permission bits of the root of the tree do not count: they say more about how a repository
/// was checked out than about what is in it.
pub fn selection_digest(
    tree: &dyn SourceTree,
    selection: &Selection,
    hashes: &dyn ContentHashes,
) -> Result<Digest, TreeError> {
    digest_parts(tree, selection, hashes, &mut |_| {})
}

/// [`selection_digest`] with what it was made from.
pub fn selection_listing(
    tree: &dyn SourceTree,
    selection: &Selection,
    hashes: &dyn ContentHashes,
) -> Result<(Digest, Vec<SelectedPart>), TreeError> {
    let mut parts = Vec::new();
    let digest = digest_parts(tree, selection, hashes, &mut |part| parts.push(part))?;
    Ok((digest, parts))
}

/// Whether a part that was read earlier still has the content that it had. What `hashes` knows is not
/// read again.
pub(crate) fn is_unchanged(
    tree: &dyn SourceTree,
    part: &SelectedPart,
    hashes: &dyn ContentHashes,
) -> Result<bool, TreeError> {
    Ok(contents_of(tree, &part.start, &part.walk, hashes)? == part.contents)
}

fn digest_parts(
    tree: &dyn SourceTree,
    selection: &Selection,
    hashes: &dyn ContentHashes,
    keep: &mut dyn FnMut(SelectedPart),
) -> Result<Digest, TreeError> {
    let mut hasher = Hasher::new("rbc selection 1");
    let mut add = |selected: Vec<Selected>, filter: &Filter| -> Result<(), TreeError> {
        for one in &selected {
            let part = part_of(tree, one, filter, hashes)?;
            add_part(&mut hasher, one, &part);
            keep(part);
        }
        Ok(())
    };
    if selection.parents {
        // Each path is an include pattern of its own, below the folder before its pivot.
        for path in &selection.paths {
            let alone = Selection { paths: vec![path.clone()], ..selection.clone() };
            let filter = Filter::new(&[split_pivot(&path.path).1], &selection.exclude)?;
            add(select(tree, &alone)?, &filter)?;
        }
    } else {
        let filter = Filter::new(&[], &selection.exclude)?;
        add(select(tree, selection)?, &filter)?;
    }
    Ok(hasher.finish())
}

/// Reads all that `filter` takes of a selected file or folder.
fn part_of(
    tree: &dyn SourceTree,
    one: &Selected,
    filter: &Filter,
    hashes: &dyn ContentHashes,
) -> Result<SelectedPart, TreeError> {
    let walk = walk(tree, &one.path, &one.entry, filter)?;
    let contents = contents_of(tree, &one.path, &walk, hashes)?;
    Ok(SelectedPart { start: one.path.clone(), walk, contents })
}

/// The contents of all items of a walk from `start`, folder by folder.
fn contents_of(
    tree: &dyn SourceTree,
    start: &Path,
    walk: &Walk,
    hashes: &dyn ContentHashes,
) -> Result<Vec<Vec<ItemContent>>, TreeError> {
    let known = |folder| walk.items_in(folder).map(|item| known_content(item.entry, hashes));
    let mut contents: Vec<Vec<Option<ItemContent>>> =
        (0..walk.folders()).into_par_iter().map(|folder| known(folder).collect()).collect();
    let mut unread: Vec<(WalkItem<'_>, &mut Option<ItemContent>)> = Vec::new();
    for (folder, contents) in contents.iter_mut().enumerate() {
        unread.extend(walk.items_in(folder).zip(contents).filter(|(_, found)| found.is_none()));
    }
    unread.into_par_iter().try_for_each(|(item, content)| {
        *content = Some(read_content(tree, &item.path_from(start), item.entry, hashes)?);
        Ok::<(), TreeError>(())
    })?;
    let filled = |list: Vec<Option<ItemContent>>| list.into_iter().flatten().collect();
    Ok(contents.into_par_iter().map(filled).collect())
}

fn add_part(hasher: &mut Hasher, one: &Selected, part: &SelectedPart) {
    hasher.part(one.named.file_name().unwrap_or_default().as_bytes()).number(part.len() as u64);
    // Where files with several names, which a copy keeps, were seen first.
    let mut first: HashMap<(u64, u64), usize> = HashMap::new();
    for (at, (item, content)) in part.iter().enumerate() {
        let entry = item.entry;
        let mut role = u64::from(item.role == Role::OnTheWay);
        if entry.kind == Kind::File && entry.links > 1 {
            let known = *first.entry(entry.inode).or_insert(at);
            // A further name of a file says so in place of its role, which only folders have.
            if known != at {
                role = 2 + known as u64;
            }
        }
        let is_root = part.start.as_os_str().is_empty() && item.is_start();
        let mode = if is_root { 0 } else { entry.mode };
        hasher.part_of(&item.path_pieces());
        hasher.number(entry.kind as u64).number(u64::from(mode)).number(role);
        match entry.kind {
            Kind::File => {
                hasher.number(entry.size);
            }
            Kind::Char | Kind::Block => {
                hasher.number(entry.device);
            }
            Kind::Symlink | Kind::Dir | Kind::Fifo | Kind::Socket => {}
        }
        match content {
            ItemContent::None => {}
            ItemContent::Digest(digest) => {
                hasher.digest(digest);
            }
            ItemContent::Target(target) => {
                hasher.part(target.as_os_str().as_bytes());
            }
        }
    }
}

/// The content of an entry, if it need not be read.
fn known_content(entry: &Entry, hashes: &dyn ContentHashes) -> Option<ItemContent> {
    match entry.kind {
        Kind::File => hashes.get(entry).map(ItemContent::Digest),
        Kind::Dir | Kind::Symlink => None,
        Kind::Fifo | Kind::Char | Kind::Block | Kind::Socket => Some(ItemContent::None),
    }
}

fn read_content(
    tree: &dyn SourceTree,
    path: &Path,
    entry: &Entry,
    hashes: &dyn ContentHashes,
) -> Result<ItemContent, TreeError> {
    match entry.kind {
        Kind::File => file_content(tree, path, entry, hashes).map(ItemContent::Digest),
        Kind::Symlink => tree.read_link(path, entry).map(ItemContent::Target),
        Kind::Dir => {
            let xattrs = tree.xattrs(path, entry)?;
            Ok(match xattrs.is_empty() {
                true => ItemContent::None,
                false => ItemContent::Digest(with_xattrs(Digest::of(b""), &xattrs)),
            })
        }
        Kind::Fifo | Kind::Char | Kind::Block | Kind::Socket => Ok(ItemContent::None),
    }
}

fn file_content(
    tree: &dyn SourceTree,
    path: &Path,
    entry: &Entry,
    hashes: &dyn ContentHashes,
) -> Result<Digest, TreeError> {
    // Another name of the file may have been read meanwhile.
    if let Some(known) = hashes.get(entry) {
        return Ok(known);
    }
    for _ in 0..ATTEMPTS {
        let read_at = std::time::SystemTime::now();
        let mut file = tree.open(path, entry)?;
        let digest = content_digest(&mut file).map_err(|e| TreeError::io(path, e))?;
        let after = rustix::fs::fstat(&file).map_err(|e| TreeError::io(path, e))?;
        if Entry::from_stat(&after).same_content(entry) {
            hashes.put(entry, read_at, digest);
            return Ok(digest);
        }
    }
    Err(TreeError::Changed(TreeError::shown(path)))
}

/// The digest of a file's content and, if it has some, of its kept extended attributes. Without
/// these it is the plain SHA-256 of the content.
pub fn content_digest(file: &mut File) -> io::Result<Digest> {
    let mut sha = sha2::Sha256::new();
    read_buffer::with(|buffer| {
        loop {
            match file.read(buffer) {
                Ok(0) => return Ok(()),
                Ok(length) => sha.update(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    })?;
    let content = Digest::from_bytes(sha.finalize().into());
    let xattrs = read_xattrs_of(&*file)?;
    Ok(if xattrs.is_empty() { content } else { with_xattrs(content, &xattrs) })
}

fn with_xattrs(content: Digest, xattrs: &Xattrs) -> Digest {
    let mut hasher = Hasher::new("rbc file with attributes 1");
    hasher.digest(&content);
    for (name, value) in xattrs {
        hasher.part(name.as_bytes()).part(value);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt, sync::Mutex};

    use rbc_ir::SelectPath;

    use super::*;
    use crate::tree::{ContextTree, fixture::World};

    fn selecting(path: &str) -> Selection {
        let paths = vec![SelectPath { path: path.into(), wildcard: true }];
        Selection { paths, follow_symlinks: true, ..Selection::default() }
    }

    #[test]
    fn only_what_a_copy_depends_on_counts() {
        let mut world = World::new();
        let root = world.tree("src/a = a\nsrc/sub/b = b\nsrc/link -> a\nother = o");
        let digest = |path: &str| {
            let tree = ContextTree::open(&root, &[]).expect("context");
            selection_digest(&tree, &selecting(path), &NoHashes).expect("digest")
        };
        let before = digest("src");
        fs::write(root.join("other"), "changed").expect("write");
        let old = fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH);
        fs::File::open(root.join("src/a")).and_then(|file| file.set_times(old)).expect("times");
        std::os::unix::fs::lchown(root.join("src/a"), Some(5), Some(5)).expect("owner");
        assert_eq!(digest("src"), before, "another file, times and owners");

        let mut seen = vec![before];
        let mut differs = |what: &str, change: &dyn Fn()| {
            change();
            let now = digest("src");
            assert!(!seen.contains(&now), "{what}");
            seen.push(now);
        };
        differs("content", &|| fs::write(root.join("src/a"), "b").expect("write"));
        differs("mode", &|| {
            fs::set_permissions(root.join("src/a"), fs::Permissions::from_mode(0o755))
                .expect("mode")
        });
        differs("name", &|| fs::rename(root.join("src/a"), root.join("src/c")).expect("rename"));
        differs("link", &|| {
            fs::remove_file(root.join("src/link")).expect("remove");
            std::os::unix::fs::symlink("c", root.join("src/link")).expect("link");
        });
        differs("a second name", &|| {
            fs::hard_link(root.join("src/c"), root.join("src/d")).expect("link")
        });
        differs("a copy in its place", &|| {
            fs::copy(root.join("src/c"), root.join("src/e")).expect("copy");
            fs::rename(root.join("src/e"), root.join("src/d")).expect("rename");
        });
        differs("empty folder", &|| fs::create_dir(root.join("src/new")).expect("folder"));
    }

    #[test]
    fn the_name_that_a_match_gets_counts() {
        let mut world = World::new();
        let tree = world.context("a1 = same\nb1 = same", &[]);
        let digest =
            |path: &str| selection_digest(&tree, &selecting(path), &NoHashes).expect("digest");
        assert_ne!(digest("a*"), digest("b*"));
        assert_ne!(digest("a*"), digest("none*"));
        let missing = selection_digest(&tree, &selecting("none"), &NoHashes).expect_err("missing");
        assert_eq!(missing.to_string(), "\"/none\": not found");
    }

    #[test]
    fn with_parents_only_what_is_below_the_pivots_and_matches_counts() {
        let mut world = World::new();
        let root = world.tree("a/b/c = c\na/other = o\nx/y = y");
        let path = |path: &str| SelectPath { path: path.into(), wildcard: true };
        let paths = vec![path("a/./b/c"), path("x/*")];
        let selection =
            Selection { paths, follow_symlinks: true, parents: true, ..Selection::default() };
        let digest = || {
            let tree = ContextTree::open(&root, &[]).expect("context");
            selection_digest(&tree, &selection, &NoHashes).expect("digest")
        };
        let before = digest();
        fs::write(root.join("a/other"), "changed").expect("write");
        assert_eq!(digest(), before);
        fs::set_permissions(root.join("a/b"), fs::Permissions::from_mode(0o700)).expect("mode");
        assert_ne!(digest(), before, "a folder on the way");
    }

    /// Counts how often a digest had to be made.
    #[derive(Default)]
    struct Counting(Mutex<HashMap<(u64, u64), Digest>>, Mutex<u32>);

    impl ContentHashes for Counting {
        fn get(&self, entry: &Entry) -> Option<Digest> {
            self.0.lock().expect("lock").get(&entry.inode).copied()
        }

        fn put(&self, entry: &Entry, _read_at: std::time::SystemTime, digest: Digest) {
            *self.1.lock().expect("lock") += 1;
            self.0.lock().expect("lock").insert(entry.inode, digest);
        }
    }

    #[test]
    fn known_files_are_not_read() {
        let mut world = World::new();
        let tree = world.context("src/a = a\nsrc/b = b", &[]);
        let hashes = Counting::default();
        let first = selection_digest(&tree, &selecting("src"), &hashes).expect("digest");
        let second = selection_digest(&tree, &selecting("src"), &hashes).expect("digest");
        assert_eq!(first, second);
        assert_eq!(*hashes.1.lock().expect("lock"), 2);
    }
}
