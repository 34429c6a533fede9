//! The files of the image that is being made, as they lie on this machine: a path that is added
//! brings the folders and symlinks on its way, so that it means the same in the image.

use std::{
    collections::{BTreeMap, VecDeque},
    fs,
    os::unix::fs::PermissionsExt,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context, bail};

/// Symlinks on the way to one file; Linux gives up after as many.
const MAX_LINKS: usize = 40;

/// A file of the image.
#[derive(Debug, PartialEq, Eq)]
pub enum Node {
    /// A folder with its mode.
    Dir(u32),
    /// A symlink and what it says.
    Link(PathBuf),
    /// A file of this machine with its mode.
    Copy(PathBuf, u32),
    /// A small file made here.
    Text(String),
}

/// Files by absolute path; a folder sorts before what is in it.
#[derive(Debug, Default)]
pub struct Tree {
    nodes: BTreeMap<PathBuf, Node>,
}

impl Tree {
    /// All files but the root, sorted.
    pub fn nodes(&self) -> impl Iterator<Item = (&Path, &Node)> {
        self.nodes.iter().map(|(path, node)| (path.as_path(), node))
    }

    /// Adds a file or folder (without what is in it) of this machine and returns its real path. Owners, set-uid bits and the host's
    /// umask do not travel: a program is 0755, another file 0644.
    pub fn add(&mut self, path: &Path) -> anyhow::Result<PathBuf> {
        let mut todo: VecDeque<PathBuf> = parts(path).collect();
        let mut links = 0;
        let mut real = PathBuf::from("/");
        while let Some(name) = todo.pop_front() {
            if name.as_os_str() == ".." {
                real.pop();
                continue;
            }
            real.push(&name);
            let facts = fs::symlink_metadata(&real)
                .with_context(|| format!("cannot read {}", real.display()))?;
            if facts.is_symlink() {
                links += 1;
                if links > MAX_LINKS {
                    bail!("{}: too many symlinks", path.display());
                }
                let target = fs::read_link(&real)
                    .with_context(|| format!("cannot read the symlink {}", real.display()))?;
                for part in parts(&target).collect::<Vec<_>>().into_iter().rev() {
                    todo.push_front(part);
                }
                self.nodes.insert(real.clone(), Node::Link(target.clone()));
                if target.is_absolute() {
                    real = PathBuf::from("/");
                } else {
                    real.pop();
                }
            } else if facts.is_dir() {
                self.nodes.entry(real.clone()).or_insert(Node::Dir(0o755));
            } else if facts.is_file() && todo.is_empty() {
                let executable = facts.permissions().mode() & 0o111 != 0;
                let mode = if executable { 0o755 } else { 0o644 };
                self.nodes.insert(real.clone(), Node::Copy(real.clone(), mode));
            } else {
                bail!("{} is no regular file", real.display());
            }
        }
        Ok(real)
    }

    /// Adds a folder, or gives an existing one this mode.
    pub fn dir(&mut self, path: &str, mode: u32) {
        let place = self.place(path);
        match self.nodes.get_mut(&place) {
            Some(Node::Dir(old)) => *old = mode,
            _ => drop(self.nodes.insert(place, Node::Dir(mode))),
        }
    }

    /// Adds a text file, mode 0644.
    pub fn text(&mut self, path: &str, text: &str) {
        let place = self.place(path);
        self.nodes.insert(place, Node::Text(text.to_owned()));
    }

    /// Adds a symlink unless there is something already.
    pub fn link(&mut self, path: &str, target: &Path) {
        let place = self.place(path);
        self.nodes.entry(place).or_insert_with(|| Node::Link(target.to_owned()));
    }

    /// Where `path` is behind the image's own symlinks; makes the folders above it.
    fn place(&mut self, path: &str) -> PathBuf {
        let mut todo: VecDeque<PathBuf> = parts(Path::new(path)).collect();
        let mut links = 0;
        let mut real = PathBuf::from("/");
        while let Some(name) = todo.pop_front() {
            if name.as_os_str() == ".." {
                real.pop();
                continue;
            }
            real.push(&name);
            match self.nodes.get(&real) {
                Some(Node::Link(target)) if links < MAX_LINKS => {
                    links += 1;
                    for part in parts(target).collect::<Vec<_>>().into_iter().rev() {
                        todo.push_front(part);
                    }
                    if target.is_absolute() {
                        real = PathBuf::from("/");
                    } else {
                        real.pop();
                    }
                }
                None if !todo.is_empty() => {
                    self.nodes.insert(real.clone(), Node::Dir(0o755));
                }
                _ => {}
            }
        }
        real
    }
}

/// The names in a path, `..` among them.
fn parts(path: &Path) -> impl Iterator<Item = PathBuf> {
    path.components()
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
        .map(|part| PathBuf::from(part.as_os_str()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_on_the_way_are_kept() {
        let temp = tempfile::tempdir().unwrap();
        let top = temp.path().canonicalize().unwrap();
        fs::create_dir_all(top.join("usr/bin")).unwrap();
        fs::write(top.join("usr/bin/dash"), "x").unwrap();
        symlink("usr/bin", top.join("bin")).unwrap();
        symlink("../bin/dash", top.join("usr/bin/sh")).unwrap();
        let mut tree = Tree::default();
        let real = tree.add(&top.join("bin/sh")).unwrap();
        assert_eq!(real, top.join("usr/bin/dash"));
        let below: Vec<_> = tree
            .nodes()
            .filter_map(|(path, node)| Some((path.strip_prefix(&top).ok()?, node)))
            .skip(1)
            .collect();
        assert_eq!(
            below,
            [
                (Path::new("bin"), &Node::Link("usr/bin".into())),
                (Path::new("usr"), &Node::Dir(0o755)),
                (Path::new("usr/bin"), &Node::Dir(0o755)),
                (Path::new("usr/bin/dash"), &Node::Copy(real.clone(), 0o644)),
                (Path::new("usr/bin/sh"), &Node::Link("../bin/dash".into())),
            ]
        );
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let top = temp.path().canonicalize().unwrap();
        symlink("b", top.join("a")).unwrap();
        symlink("a", top.join("b")).unwrap();
        let mut tree = Tree::default();
        let error = tree.add(&top.join("a")).unwrap_err().to_string();
        assert_eq!(error, format!("{}: too many symlinks", top.join("a").display()));
        let error = tree.add(Path::new("/dev/null")).unwrap_err().to_string();
        assert_eq!(error, "/dev/null is no regular file");
        assert!(tree.add(&top.join("none")).is_err());
    }

    #[test]
    fn own_files_follow_the_links_of_the_image() {
        let mut tree = Tree::default();
        tree.link("/bin", Path::new("usr/bin"));
        tree.link("/bin/sh", Path::new("/opt/sh"));
        tree.dir("/tmp", 0o1777);
        tree.dir("/tmp", 0o700);
        let all: Vec<_> =
            tree.nodes().map(|(path, node)| format!("{} {node:?}", path.display())).collect();
        assert_eq!(
            all,
            [
                "/bin Link(\"usr/bin\")",
                "/tmp Dir(448)",
                "/usr Dir(493)",
                "/usr/bin Dir(493)",
                "/usr/bin/sh Link(\"/opt/sh\")",
            ]
        );
    }
}
