//! The merged view of a stack of layers, worked out in user space.
//!
//! A layer is a folder in the format of an overlayfs upper directory with the `userxattr` option: a
//! whiteout is a character device 0:0, an opaque folder carries `user.overlay.opaque=y`. Layers do
//! not change once they are published, so what was learned about their folders is kept for good. It
//! also makes plain path lookups safe: a path is only handed to the kernel after each folder on it
//! was seen to be a real one in that very layer.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::{OsStr, OsString},
    fs::File,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
    sync::{Arc, RwLock},
};

use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, lgetxattr, open, openat2, readlink, statat},
    io::Errno,
};

use super::{Entries, Entry, SourceTree, TreeError, Xattrs, read_xattrs};

/// The attribute by which overlayfs marks a folder that hides the one below it.
pub(crate) const OPAQUE: &str = "user.overlay.opaque";

/// A stack of layers seen as one tree.
#[derive(Debug)]
pub struct LayerStack {
    /// Highest first.
    layers: Vec<PathBuf>,
    /// The folders seen so far: in which layers they are, highest first, as far down as they merge.
    dirs: RwLock<HashMap<PathBuf, Arc<[usize]>>>,
}

/// An entry and, if it is a folder, the layers that it merges, highest first.
type Found = (Entry, Arc<[usize]>);

impl LayerStack {
    /// The view of the given layer folders, lowest first. None at all is an empty root.
    pub fn new(dirs_lowest_first: Vec<PathBuf>) -> Self {
        let mut layers = dirs_lowest_first;
        layers.reverse();
        let root: Arc<[usize]> = (0..layers.len()).collect();
        Self { layers, dirs: RwLock::new(HashMap::from([(PathBuf::new(), root)])) }
    }

    /// Whether there are no layers at all, as in `FROM scratch`.
    pub fn is_scratch(&self) -> bool {
        self.layers.is_empty()
    }

    /// Where the given path is in a layer on the host.
    fn host_path(&self, layer: usize, path: &Path) -> PathBuf {
        // Joining an empty path would add a slash.
        if path.as_os_str().is_empty() {
            self.layers[layer].clone()
        } else {
            self.layers[layer].join(path)
        }
    }

    fn stat(&self, layer: usize, path: &Path) -> Result<Option<Entry>, TreeError> {
        let host = self.host_path(layer, path);
        match statat(CWD, &host, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => match Entry::in_layer(&stat, &host, layer) {
                Ok(entry) => Ok(Some(entry)),
                Err(error) => Err(TreeError::Io(host, error)),
            },
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(TreeError::Io(host, error.into())),
        }
    }

    fn is_opaque(&self, layer: usize, path: &Path) -> bool {
        let mut value = [0; 4];
        matches!(lgetxattr(self.host_path(layer, path), OPAQUE, &mut value[..]), Ok(1) if value[0] == b'y')
    }

    fn known_dir(&self, path: &Path) -> Option<Arc<[usize]>> {
        self.dirs.read().unwrap_or_else(std::sync::PoisonError::into_inner).get(path).cloned()
    }

    /// The layers that make up the folder `path`; `None` if it is no folder.
    fn dir(&self, path: &Path) -> Result<Option<Arc<[usize]>>, TreeError> {
        if let Some(known) = self.known_dir(path) {
            return Ok(Some(known));
        }
        // From the nearest known parent downwards, so that no depth of nesting exhausts the stack.
        let mut missing = vec![path];
        for parent in path.ancestors().skip(1) {
            if self.known_dir(parent).is_some() {
                break;
            }
            missing.push(parent);
        }
        let mut layers = None;
        for dir in missing.into_iter().rev() {
            match self.search(dir)? {
                Some((entry, merged)) if entry.is_dir() => {
                    self.remember(dir, &merged);
                    layers = Some(merged);
                }
                _ => return Ok(None),
            }
        }
        Ok(layers)
    }

    fn remember(&self, dir: &Path, layers: &Arc<[usize]>) {
        let mut dirs = self.dirs.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        dirs.entry(dir.to_owned()).or_insert_with(|| layers.clone());
    }

    /// Looks `path` up in the layers of its parent, which must be known. A folder comes with the
    /// layers that it merges.
    fn search(&self, path: &Path) -> Result<Option<Found>, TreeError> {
        let Some(parent) = path.parent() else {
            return Ok(self.root_entry()?.map(|entry| (entry, (0..self.layers.len()).collect())));
        };
        let Some(in_layers) = self.known_dir(parent) else { return Ok(None) };
        let mut top: Option<Entry> = None;
        let mut merged = Vec::new();
        for (at, &layer) in in_layers.iter().enumerate() {
            let Some(entry) = self.stat(layer, path)? else { continue };
            if top.is_some() && !entry.is_dir() {
                break; // a file or whiteout ends what merges into the folder above it
            }
            if entry.is_whiteout() {
                return Ok(None);
            }
            merged.push(layer);
            let ends = !entry.is_dir() || at + 1 == in_layers.len() || self.is_opaque(layer, path);
            top.get_or_insert(entry);
            if ends {
                break;
            }
        }
        Ok(top.map(|entry| (entry, merged.into())))
    }

    fn root_entry(&self) -> Result<Option<Entry>, TreeError> {
        if self.layers.is_empty() {
            Ok(Some(Entry::empty_root()))
        } else {
            self.stat(0, Path::new(""))
        }
    }

    /// Lists one layer's share of a folder.
    fn list(&self, layer: usize, path: &Path) -> Result<Vec<OsString>, TreeError> {
        let host = self.host_path(layer, path);
        let failed = |error: std::io::Error| TreeError::Io(host.clone(), error);
        std::fs::read_dir(&host)
            .map_err(failed)?
            .map(|entry| entry.map(|entry| entry.file_name()).map_err(failed))
            .collect()
    }
}

impl SourceTree for LayerStack {
    fn lookup(&self, path: &Path) -> Result<Option<Entry>, TreeError> {
        let Some(parent) = path.parent() else { return self.root_entry() };
        if self.dir(parent)?.is_none() {
            return Ok(None);
        }
        let Some((entry, merged)) = self.search(path)? else { return Ok(None) };
        if entry.is_dir() {
            self.remember(path, &merged);
        }
        Ok(Some(entry))
    }

    fn read_dir(&self, path: &Path) -> Result<Entries, TreeError> {
        let Some(layers) = self.dir(path)? else {
            return Err(TreeError::NotADirectory(TreeError::shown(path)));
        };
        let mut names: BTreeMap<OsString, Option<Entry>> = BTreeMap::new();
        for &layer in layers.iter() {
            for name in self.list(layer, path)? {
                if names.contains_key(&name) {
                    continue;
                }
                let entry = self.stat(layer, &path.join(&name))?;
                names.insert(name, entry.filter(|entry| !entry.is_whiteout()));
            }
        }
        let entries = names.into_iter().filter_map(|(name, entry)| Some((name, entry?)));
        Ok(Arc::new(entries.collect()))
    }

    fn open(&self, path: &Path, entry: &Entry) -> Result<File, TreeError> {
        let root = &self.layers[entry.layer];
        let failed = |error: Errno| TreeError::Io(root.join(path), error.into());
        let dir = open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(failed)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        Ok(openat2(&dir, path, flags, Mode::empty(), within).map_err(failed)?.into())
    }

    fn read_link(&self, path: &Path, entry: &Entry) -> Result<PathBuf, TreeError> {
        let target = readlink(self.host_path(entry.layer, path), Vec::new())
            .map_err(|e| TreeError::io(path, e))?;
        Ok(OsString::from_vec(target.into_bytes()).into())
    }

    fn xattrs(&self, path: &Path, entry: &Entry) -> Result<Xattrs, TreeError> {
        if self.layers.is_empty() {
            return Ok(Vec::new());
        }
        read_xattrs(&self.host_path(entry.layer, path)).map_err(|error| TreeError::io(path, error))
    }

    fn immutable_file(&self, path: &Path, entry: &Entry) -> Option<PathBuf> {
        Some(self.host_path(entry.layer, path))
    }
}

/// Whether a folder at a host path is marked opaque.
pub(crate) fn mark_opaque(dir: &Path) -> std::io::Result<()> {
    let set = rustix::fs::lsetxattr(
        dir,
        OsStr::from_bytes(OPAQUE.as_bytes()),
        b"y",
        rustix::fs::XattrFlags::empty(),
    );
    Ok(set?)
}

#[cfg(test)]
mod tests {
    use std::{ffi::CString, fs, os::unix::fs::PermissionsExt};

    use insta::assert_snapshot;
    use proptest::prelude::*;
    use rustix::{mount, thread::UnshareFlags};

    use super::*;
    use crate::tree::{
        LastLink,
        fixture::{World, listing},
        resolve,
    };

    fn stack(world: &mut World, layers: &[&str]) -> LayerStack {
        LayerStack::new(layers.iter().map(|lines| world.tree(lines)).collect())
    }

    #[test]
    fn higher_layers_hide_replace_and_merge() {
        let mut world = World::new();
        let tree = stack(
            &mut world,
            &[
                "etc/ 0700\netc/a = low\netc/b = low\nopt/x = x\nopt/deep/y = y\nvar/log = l\nold/f = f\nlink -> etc",
                "etc/ 0711\netc/a = mid\netc/b !\nopt/ !\nopt/z = z\nvar = file now\nold !",
                "etc/c = top\nvar/ \nvar/new = n\nold/g = g\nlink/ \nlink/h = h",
            ],
        );
        assert_snapshot!(listing(&tree), @r"
        etc/ 0755
        etc/a 0644 = mid
        etc/c 0644 = top
        link/ 0755
        link/h 0644 = h
        old/ 0755
        old/g 0644 = g
        opt/ 0755
        opt/z 0644 = z
        var/ 0755
        var/new 0644 = n
        ");
    }

    #[test]
    fn links_are_resolved_against_the_root() {
        let mut world = World::new();
        let tree = stack(
            &mut world,
            &[
                "abs -> /data/real\nclimb -> ../../../data\ndata/real/f = f\ndata/up -> ../../data/./real/f\nself -> self\nfile = x",
            ],
        );
        for (path, want) in [
            ("abs/f", "data/real/f"),
            ("climb/real", "data/real"),
            ("climb/up", "data/real/f"),
            ("abs/none/../x", "data/real/x"),
            ("none/a/b", "none/a/b"),
            ("../../abs", "data/real"),
        ] {
            let found = resolve(&tree, Path::new(path), LastLink::Follow)
                .map(|path| path.display().to_string());
            assert_eq!(found.ok().as_deref(), Some(want), "{path}");
        }
        let failure = |path: &str| {
            resolve(&tree, Path::new(path), LastLink::Follow)
                .map_or_else(|e| e.to_string(), |_| String::new())
        };
        assert_eq!(failure("self/x"), "\"/self/x\": too many levels of symbolic links");
        assert_eq!(failure("file/x"), "\"/file\": not a directory");
        // A path through a link names nothing by itself, and none leads out of the layer.
        assert!(tree.lookup(Path::new("abs/f")).expect("lookup").is_none());
    }

    #[test]
    fn names_need_not_be_text() {
        let mut world = World::new();
        let layer = world.folder();
        let name = OsStr::from_bytes(b"caf\xe9");
        fs::write(layer.join(name), "x").expect("file");
        let tree = LayerStack::new(vec![layer]);
        let entries = tree.read_dir(Path::new("")).expect("list");
        assert!(matches!(entries.as_slice(), [(found, _)] if found == name));
        assert!(tree.lookup(Path::new(name)).expect("lookup").is_some());
    }

    /// One line of a layer: which of a few names, at which depth, and what it is.
    fn arbitrary_layer() -> impl Strategy<Value = Vec<(Vec<u8>, u8)>> {
        let path = proptest::collection::vec(0..3_u8, 1..4);
        proptest::collection::vec((path, 0..6_u8), 0..8)
    }

    fn write_layer(root: &Path, lines: &[(Vec<u8>, u8)], number: usize) {
        for (at, (names, what)) in lines.iter().enumerate() {
            let path: PathBuf =
                names.iter().map(|name| ["a", "b", "c"][usize::from(*name)]).collect();
            let path = root.join(path);
            if fs::create_dir_all(path.parent().expect("parent")).is_err()
                || path.symlink_metadata().is_ok()
            {
                continue;
            }
            match what {
                0 | 1 => fs::write(&path, format!("{number} {at}")).expect("file"),
                2 => std::os::unix::fs::symlink("a", &path).expect("link"),
                3 => fs::create_dir(&path).expect("folder"),
                4 => {
                    fs::create_dir(&path).expect("folder");
                    crate::tree::mark_opaque(&path).expect("opaque mark");
                }
                _ => rustix::fs::mknodat(
                    CWD,
                    &path,
                    rustix::fs::FileType::CharacterDevice,
                    Mode::empty(),
                    0,
                )
                .expect("whiteout"),
            }
            if matches!(what, 0 | 3) {
                let mode = 0o700 + u32::try_from(at).expect("small");
                fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("mode");
            }
        }
    }

    /// What the kernel makes of the layers; `None` where it may not be asked.
    fn kernel_listing(layers: &[PathBuf], at: &Path) -> Option<String> {
        std::thread::scope(|scope| {
            let mounted = scope.spawn(|| {
                // SAFETY: only this thread, which ends right after, leaves the shared namespace and
                // working folder; it opens nothing that others use.
                unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }
                    .ok()?;
                let private =
                    mount::MountPropagationFlags::PRIVATE | mount::MountPropagationFlags::REC;
                mount::mount_change("/", private).ok()?;
                let lower: Vec<_> =
                    layers.iter().rev().map(|layer| layer.display().to_string()).collect();
                let options =
                    CString::new(format!("lowerdir={},userxattr", lower.join(":"))).ok()?;
                mount::mount(
                    "overlay",
                    at,
                    "overlay",
                    mount::MountFlags::RDONLY,
                    options.as_c_str(),
                )
                .ok()?;
                Some(listing(&LayerStack::new(vec![at.to_owned()])))
            });
            mounted.join().expect("listing thread")
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn the_kernel_sees_the_same(layers in proptest::collection::vec(arbitrary_layer(), 2..4)) {
            let mut world = World::new();
            let mut folders = Vec::new();
            for (number, lines) in layers.iter().enumerate() {
                let folder = world.folder();
                write_layer(&folder, lines, number);
                folders.push(folder);
            }
            let at = world.folder();
            if let Some(want) = kernel_listing(&folders, &at) {
                prop_assert_eq!(listing(&LayerStack::new(folders)), want);
            }
        }
    }
}
