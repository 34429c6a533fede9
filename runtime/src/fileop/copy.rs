//! COPY and ADD: what goes where and with which facts.
//!
//! The rules are BuildKit's (`tonistiigi/fsutil`, package `copy`): the destination's symlinks are
//! followed, the folder that is copied gives its contents but not itself, folders below it carry
//! their facts onto those that exist, files replace anything but folders.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
};

use rayon::prelude::*;
use rbc_ir::CopyAction;
use rustix::{
    fs::{CWD, FileType, Mode, mknodat},
    io::Errno,
};

use super::{
    FileOpError, FileOpOptions, Lineage, Sharing, data,
    mode::{Change, Of},
    owner,
    target::{Facts, NewDir, Target, failed},
    unpack,
};
use crate::tree::{
    Entry, Filter, Kind, LastLink, Role, Selected, SourceTree, TreeError, WalkItem, Wildcards,
    clean, pivots, sources, split_pivot, walk,
};

/// From so many files on, copying them is spread over threads.
const PARALLEL_FROM: usize = 32;

/// So many files are noted before they are copied: enough for all threads, little to remember.
const MAX_PENDING: usize = 4096;

/// Carries out one copy.
pub(super) fn run(
    target: &mut Target<'_>,
    source: &dyn SourceTree,
    action: &CopyAction,
    opts: &FileOpOptions<'_>,
) -> Result<(), FileOpError> {
    let owner = action.owner.as_ref().map(|owner| owner::ids(target.base(), owner)).transpose()?;
    let change = Change::new(action.mode.as_ref())?;
    let wildcards = if action.wildcard { Wildcards::Match } else { Wildcards::Literal };
    let last = if action.follow_symlinks { LastLink::Follow } else { LastLink::Keep };
    let selected = if action.parents {
        pivots(source, &action.source, wildcards, last)
    } else {
        sources(source, &action.source, wildcards, last)
    };
    let selected = match selected {
        Err(TreeError::NotFound(..)) if action.allow_missing => return Ok(()),
        selected => selected?,
    };
    let include = if action.parents { vec![split_pivot(&action.source).1] } else { Vec::new() };
    let filter = Filter::new(&include, &action.exclude).map_err(TreeError::from)?;

    for one in &selected {
        if action.unpack && unpack::run(target, source, one, &action.dest, owner)? {
            continue;
        }
        let mut copier = Copier {
            source,
            owner,
            change: &change,
            sharing: opts.sharing,
            lineage: opts.lineage,
            fresh: HashSet::new(),
            inodes: HashMap::new(),
            files: Vec::new(),
            links: Vec::new(),
        };
        let dest = copier.place(target, one, &action.dest)?;
        copier.tree(target, one, &dest, &filter)?;
        copier.move_files()?;
        copier.link_names()?;
    }
    Ok(())
}

/// The copy of one source.
struct Copier<'a> {
    source: &'a dyn SourceTree,
    owner: Option<(u32, u32)>,
    change: &'a Change,
    sharing: Sharing,
    lineage: Option<&'a Lineage<'a>>,
    /// Folders that this copy made, in which nothing can be in the way.
    fresh: HashSet<PathBuf>,
    /// Where the first name of an inode with several names went.
    inodes: HashMap<(u64, u64), PathBuf>,
    files: Vec<FileJob>,
    /// Further names of files: what they link to, where they are.
    links: Vec<(PathBuf, PathBuf)>,
}

/// A regular file to be copied once its folder is there.
struct FileJob {
    path: PathBuf,
    entry: Entry,
    /// Its path in the layer.
    to: PathBuf,
    host: PathBuf,
    facts: Facts,
}

impl Copier<'_> {
    /// Finds the path that the source gets, and makes the folders above it.
    fn place(
        &mut self,
        target: &mut Target<'_>,
        one: &Selected,
        dest: &str,
    ) -> Result<PathBuf, FileOpError> {
        let (uid, gid) = self.owner.unwrap_or((0, 0));
        let new = NewDir { uid, gid, mode: self.change.new_dir() };
        let names_folder =
            dest.ends_with('/') || dest.ends_with("/.") || dest == "." || dest.is_empty();
        let cleaned = clean(dest);
        let folder = if names_folder { Some(cleaned.as_path()) } else { cleaned.parent() };
        if let Some(folder) = folder {
            let folder = target.resolve(folder)?;
            target.make_dirs(&folder, new)?;
        }

        let mut dest = target.resolve(&cleaned)?;
        let existing = target.lookup(&dest)?;
        let is_dir = one.entry.is_dir();
        if !is_dir && existing.as_ref().is_some_and(Entry::is_dir) {
            dest.push(one.named.file_name().unwrap_or_default());
        }
        let needed =
            if is_dir && existing.is_none() { Some(dest.as_path()) } else { dest.parent() };
        if let Some(needed) = needed {
            target.make_dirs(needed, new)?;
        }
        Ok(dest)
    }

    /// Makes everything but the contents of files.
    fn tree(
        &mut self,
        target: &mut Target<'_>,
        one: &Selected,
        dest: &Path,
        filter: &Filter,
    ) -> Result<(), FileOpError> {
        for item in walk(self.source, &one.path, &one.entry, filter)?.iter() {
            let is_top = item.is_start();
            let (from, to) = (item.path_from(&one.path), item.path_from(dest));
            match item.entry.kind {
                Kind::Dir if is_top => {
                    if !target.lookup(&to)?.is_some_and(|entry| entry.is_dir()) {
                        return Err(FileOpError::OntoNonDirectory(TreeError::shown(&to)));
                    }
                }
                Kind::Dir => self.folder(target, &from, &to, &item)?,
                _ => self.other(target, &from, &to, item.entry)?,
            }
        }
        Ok(())
    }

    fn folder(
        &mut self,
        target: &mut Target<'_>,
        from: &Path,
        to: &Path,
        item: &WalkItem<'_>,
    ) -> Result<(), FileOpError> {
        match self.in_the_way(target, to)? {
            Some(entry) if !entry.is_dir() => {
                return Err(FileOpError::OntoNonDirectory(TreeError::shown(to)));
            }
            Some(_) if item.role == Role::OnTheWay => {
                target.copy_up(to)?;
                return target.set_mode(to, item.entry.mode);
            }
            Some(_) => target.copy_up(to)?,
            None => {
                target.make_dir(to, NewDir::default())?;
                self.fresh.insert(to.to_owned());
            }
        }
        let xattrs = self.source.xattrs(from, item.entry)?;
        target.set_dir_facts(to, &self.facts(item.entry), &xattrs)
    }

    fn other(
        &mut self,
        target: &mut Target<'_>,
        from: &Path,
        to: &Path,
        entry: &Entry,
    ) -> Result<(), FileOpError> {
        if self.in_the_way(target, to)?.is_some_and(|there| there.is_dir()) {
            return Err(FileOpError::OntoDirectory(TreeError::shown(to)));
        }
        let host = if self.is_fresh(to) { target.host(to) } else { target.make_room(to)? };
        let facts = self.facts(entry);
        let file_type = match entry.kind {
            Kind::Symlink => {
                let link = self.source.read_link(from, entry)?;
                std::os::unix::fs::symlink(link, &host).map_err(|e| failed(to, e))?;
                target.set_owner(to, facts.uid, facts.gid)?;
                return target.set_time(to, facts.mtime);
            }
            Kind::File | Kind::Dir => {
                if entry.links > 1 {
                    if let Some(first) = self.inodes.get(&entry.inode) {
                        self.links.push((first.clone(), host));
                        return Ok(());
                    }
                    self.inodes.insert(entry.inode, host.clone());
                }
                let (path, to) = (from.to_owned(), to.to_owned());
                self.files.push(FileJob { path, entry: entry.clone(), to, host, facts });
                return if self.files.len() < MAX_PENDING { Ok(()) } else { self.move_files() };
            }
            Kind::Fifo => FileType::Fifo,
            Kind::Char => FileType::CharacterDevice,
            Kind::Block => FileType::BlockDevice,
            // A socket without its server is of no use; an empty file stands in for it.
            Kind::Socket => FileType::RegularFile,
        };
        let device = if matches!(entry.kind, Kind::Char | Kind::Block) { entry.device } else { 0 };
        if entry.is_whiteout() {
            return Err(failed(to, Errno::PERM)); // as overlayfs answers: it would hide what is below
        }
        mknodat(CWD, &host, file_type, Mode::RUSR | Mode::WUSR, device)
            .map_err(|e| failed(to, e))?;
        target.set_owner(to, facts.uid, facts.gid)?;
        target.set_mode(to, facts.mode)?;
        target.set_time(to, facts.mtime)
    }

    fn in_the_way(&self, target: &Target<'_>, to: &Path) -> Result<Option<Entry>, FileOpError> {
        if self.is_fresh(to) { Ok(None) } else { Ok(target.lookup(to)?) }
    }

    /// Whether the folder of `to` was made by this copy.
    fn is_fresh(&self, to: &Path) -> bool {
        to.parent().is_some_and(|parent| self.fresh.contains(parent))
    }

    fn facts(&self, entry: &Entry) -> Facts {
        let (uid, gid) = self.owner.unwrap_or((entry.uid, entry.gid));
        let of = if entry.is_dir() { Of::Folder } else { Of::Other };
        Facts { uid, gid, mode: self.change.apply(entry.mode, of), mtime: entry.mtime }
    }

    /// Brings over the contents of the files noted so far, whose folders are there.
    fn move_files(&mut self) -> Result<(), FileOpError> {
        let files = std::mem::take(&mut self.files);
        if files.len() < PARALLEL_FROM {
            files.iter().try_for_each(|job| job.run(self))
        } else {
            files.par_iter().try_for_each(|job| job.run(self))
        }
    }

    /// Makes the further names of files that are there.
    fn link_names(self) -> Result<(), FileOpError> {
        for (first, host) in self.links {
            std::fs::hard_link(&first, &host).map_err(|e| FileOpError::Io(host, e))?;
        }
        Ok(())
    }
}

impl FileJob {
    fn run(&self, copier: &Copier<'_>) -> Result<(), FileOpError> {
        let source = copier.source;
        if copier.sharing == Sharing::HardLink
            && let Some(same) = self.same_file(source, copier.lineage)
            && data::link_file(&same, &self.host).map_err(|e| failed(&self.path, e))?
        {
            return Ok(());
        }
        data::copy_file(source, &self.path, &self.entry, &self.host, &self.facts)
    }

    /// A file of a layer that is what the copy will be.
    fn same_file(&self, source: &dyn SourceTree, lineage: Option<&Lineage<'_>>) -> Option<PathBuf> {
        // A file that has several names keeps just these: programs look at how many there are.
        let is_single = self.entry.links == 1;
        let Some(backing) = source.immutable_file(&self.path, &self.entry) else {
            return lineage
                .filter(|_| is_single)
                .and_then(|lineage| lineage.same_file(&self.entry, &self.to, &self.facts));
        };
        let unchanged = (self.facts.uid, self.facts.gid, self.facts.mode)
            == (self.entry.uid, self.entry.gid, self.entry.mode);
        let may_link =
            is_single || lineage.is_some_and(|lineage| lineage.was_linked(&self.entry, &self.to));
        (unchanged && may_link).then_some(backing)
    }
}
