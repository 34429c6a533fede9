//! The control groups of a step whose build names a parent group (`--cgroup-parent`).
//!
//! Whatever limits the parent has hold for the step too. Works with the unified hierarchy and with
//! those of version 1. [`Cgroup::below`] makes the groups, the runner joins them with [`join`]
//! before it starts anything, and they are removed when the step has ended. What a killed rbc left
//! is removed by the next one that uses the parent.

use std::{
    fs,
    io::{self, ErrorKind},
    path::{Component, Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use super::error::{Context, SetupError};

const HIERARCHIES: &str = "/sys/fs/cgroup";
/// Names of groups are this, the pid of rbc and a number.
const PREFIX: &str = "rbc-";
/// A new cpuset of version 1 is empty; nothing can join it before these are set.
const CPUSET: [&str; 2] = ["cpuset.cpus", "cpuset.mems"];

/// Groups for one step, one in each hierarchy.
pub struct Cgroup {
    folders: Vec<PathBuf>,
}

impl Cgroup {
    /// Makes groups below `parent`, which is counted from the roots of the hierarchies and made if
    /// it does not exist.
    ///
    /// # Errors
    /// If there is no hierarchy, or the user may not make groups there.
    pub fn below(parent: &str) -> io::Result<Self> {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}", std::process::id());
        let inside: PathBuf = Path::new(parent)
            .components()
            .filter(|component| matches!(component, Component::Normal(_)))
            .collect();
        let mut group = Self { folders: Vec::new() };
        for hierarchy in hierarchies()? {
            let parent = hierarchy.join(&inside);
            make(&hierarchy, &parent)?;
            remove_leftovers(&parent);
            let own = parent.join(&name);
            make(&hierarchy, &own)?;
            group.folders.push(own);
        }
        match group.folders.is_empty() {
            true => Err(ErrorKind::NotFound.into()),
            false => Ok(group),
        }
    }

    /// Whether the kernel killed a process in the groups for want of memory.
    pub fn had_too_little_memory(&self) -> bool {
        // The unified hierarchy has the first file, the one of version 1 the second.
        let files = ["memory.events", "memory.oom_control"];
        let texts = self.folders.iter().flat_map(|folder| files.map(|file| folder.join(file)));
        texts.filter_map(|path| fs::read_to_string(path).ok()).any(|text| {
            text.lines()
                .filter_map(|line| line.strip_prefix("oom_kill "))
                .any(|count| count.trim() != "0")
        })
    }

    /// The folders of the groups.
    pub fn folders(&self) -> &[PathBuf] {
        &self.folders
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for folder in &self.folders {
            // Fails only while a process is in it; then the next step removes it.
            let _ = fs::remove_dir(folder);
        }
    }
}

/// Moves this process into groups.
pub(super) fn join(folders: &[PathBuf]) -> Result<(), SetupError> {
    folders.iter().try_for_each(|folder| {
        fs::write(folder.join("cgroup.procs"), "0")
            .context(|| format!("join the cgroup {}", folder.display()))
    })
}

/// The roots of all hierarchies.
fn hierarchies() -> io::Result<Vec<PathBuf>> {
    let is_root = |folder: &Path| folder.join("cgroup.procs").exists();
    let top = PathBuf::from(HIERARCHIES);
    if is_root(&top) {
        return Ok(vec![top]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(&top)? {
        // `cpu` and its like may be links to `cpu,cpuacct`.
        let entry = entry?;
        if entry.file_type()?.is_dir() && is_root(&entry.path()) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Makes a group and those above it.
fn make(hierarchy: &Path, group: &Path) -> io::Result<()> {
    let mut path = hierarchy.to_owned();
    for name in group.strip_prefix(hierarchy).unwrap_or(group) {
        let above = path.clone();
        path.push(name);
        match fs::create_dir(&path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        for file in CPUSET {
            if fs::read(path.join(file)).is_ok_and(|set| set.trim_ascii().is_empty())
                && let Ok(all) = fs::read(above.join(file))
                && !all.trim_ascii().is_empty()
            {
                fs::write(path.join(file), all)?;
            }
        }
    }
    Ok(())
}

/// Removes groups whose rbc is gone. Those with processes in them cannot be removed.
fn remove_leftovers(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = fs::remove_dir(entry.path());
        }
    }
}
