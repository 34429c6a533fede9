//! For tests: writes trees from text, and lists trees as text.

use std::{
    fs,
    io::Read,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::{ContextTree, Entry, Filter, Kind, LayerStack, SourceTree, mark_opaque, walk};

/// A folder with layers and contexts that goes away with the test.
pub(crate) struct World {
    pub dir: tempfile::TempDir,
    next: u32,
}

impl World {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("temporary folder"), next: 0 }
    }

    /// A new empty folder.
    pub fn folder(&mut self) -> PathBuf {
        self.next += 1;
        let folder = self.dir.path().join(self.next.to_string());
        fs::create_dir(&folder).expect("new folder");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("mode");
        folder
    }

    /// Writes a tree. Lines are `PATH [MODE] [UID:GID]` with what the path is at its end: `dir/`,
    /// `file = TEXT`, `link -> TARGET`, `fifo |`, `hard => FIRST`, `whiteout !`, `opaque/ !`.
    pub fn tree(&mut self, lines: &str) -> PathBuf {
        let root = self.folder();
        for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
            write_line(&root, line);
        }
        root
    }

    /// A stack of one layer, or of none for no text.
    pub fn base(&mut self, lines: &str) -> LayerStack {
        let layers = if lines.trim().is_empty() { Vec::new() } else { vec![self.tree(lines)] };
        LayerStack::new(layers)
    }

    /// A context with ignore patterns.
    pub fn context(&mut self, lines: &str, ignore: &[&str]) -> ContextTree {
        let root = self.tree(lines);
        let ignore: Vec<String> = ignore.iter().map(|pattern| (*pattern).to_owned()).collect();
        ContextTree::open(&root, &ignore).expect("context")
    }
}

fn write_line(root: &Path, line: &str) {
    let (head, what) = ["=>", "->", "=", "|", "!"]
        .iter()
        .find_map(|sign| {
            line.split_once(&format!(" {sign}"))
                .map(|(head, rest)| (head, Some((*sign, rest.trim()))))
        })
        .unwrap_or((line, None));
    let mut words = head.split(' ');
    let name = words.next().expect("a path");
    let path = root.join(name.trim_end_matches('/'));
    fs::create_dir_all(path.parent().expect("a parent")).expect("parents");
    let (mut mode, mut owner) = (None, None);
    for word in words {
        match word.split_once(':') {
            Some((uid, gid)) => {
                owner = Some((uid.parse().expect("uid"), gid.parse().expect("gid")))
            }
            None => mode = Some(u32::from_str_radix(word, 8).expect("mode")),
        }
    }
    match what {
        None => fs::create_dir_all(&path).expect("folder"),
        Some(("=", text)) => fs::write(&path, text).expect("file"),
        Some(("->", target)) => symlink(target, &path).expect("link"),
        Some(("=>", first)) => fs::hard_link(root.join(first), &path).expect("hard link"),
        Some(("|", _)) => mknodat(CWD, &path, FileType::Fifo, Mode::RUSR, 0).expect("fifo"),
        Some(_) if name.ends_with('/') => {
            fs::create_dir_all(&path).expect("folder");
            mark_opaque(&path).expect("opaque mark");
        }
        Some(_) => {
            mknodat(CWD, &path, FileType::CharacterDevice, Mode::empty(), 0).expect("whiteout")
        }
    }
    if let Some((uid, gid)) = owner {
        std::os::unix::fs::lchown(&path, Some(uid), Some(gid)).expect("owner");
    }
    let default = if name.ends_with('/') { 0o755 } else { 0o644 };
    if !matches!(what, Some(("->" | "!" | "=>", _))) {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode.unwrap_or(default)))
            .expect("mode");
    }
}

/// One line for each entry of a tree: path, mode, owner if it is not root, content.
pub(crate) fn listing(tree: &dyn SourceTree) -> String {
    let root = tree.lookup(Path::new("")).expect("root").expect("root");
    let items = walk(tree, Path::new(""), &root, &Filter::default()).expect("walk");
    items.iter().skip(1).map(|item| line(tree, &item.path(), item.entry) + "\n").collect()
}

fn line(tree: &dyn SourceTree, path: &Path, entry: &Entry) -> String {
    let mut line = path.display().to_string();
    if entry.is_dir() {
        line.push('/');
    }
    if entry.kind != Kind::Symlink {
        line += &format!(" {:04o}", entry.mode);
    }
    if (entry.uid, entry.gid) != (0, 0) {
        line += &format!(" {}:{}", entry.uid, entry.gid);
    }
    match entry.kind {
        Kind::File => {
            let mut text = String::new();
            tree.open(path, entry).expect("open").read_to_string(&mut text).expect("text");
            line += &format!(" = {text}");
        }
        Kind::Symlink => {
            line += &format!(" -> {}", tree.read_link(path, entry).expect("link").display())
        }
        Kind::Fifo => line += " |",
        Kind::Dir => {}
        other => line += &format!(" {other:?}"),
    }
    line
}
