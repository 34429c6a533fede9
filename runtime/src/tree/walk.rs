//! Lists what a COPY takes from below one of its sources.

use std::{
    ffi::{OsStr, OsString},
    num::NonZeroUsize,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use rayon::prelude::*;
use rbc_ir::pattern::{BadPattern, ParentMatch, PatternMatcher};

use super::{Entries, Entry, SourceTree, TreeError, has_wildcards};

/// Which entries below a source are taken. Patterns are matched against paths relative to the
/// source; the source itself is always taken.
#[derive(Debug, Default)]
pub struct Filter {
    include: Option<(PatternMatcher, Vec<Reach>)>,
    exclude: Option<PatternMatcher>,
}

/// How far into the tree an include pattern reaches.
#[derive(Debug)]
struct Reach {
    /// The leading names that are no pattern.
    literal: PathBuf,
    /// The number of names, if it is known.
    depth: Option<usize>,
}

/// Why an entry is in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It is taken.
    Taken,
    /// It is a folder that is not taken itself but holds something that is.
    OnTheWay,
}

/// One entry of a walk.
#[derive(Clone, Copy, Debug)]
pub struct WalkItem<'a> {
    /// Its folder, relative to where the walk started.
    folder: &'a Path,
    /// Its name; empty for the start.
    name: &'a OsStr,
    /// The entry.
    pub entry: &'a Entry,
    /// Why it is listed.
    pub role: Role,
}

impl WalkItem<'_> {
    /// Path relative to where the walk started; empty for the start.
    pub fn path(&self) -> PathBuf {
        join(self.folder, self.name)
    }

    /// Path in a tree in which the start is at `start`.
    pub fn path_from(&self, start: &Path) -> PathBuf {
        if self.is_start() { start.to_owned() } else { start.join(self.folder).join(self.name) }
    }

    /// The pieces that make the bytes of the path.
    pub(super) fn path_pieces(&self) -> [&[u8]; 3] {
        let slash: &[u8] = if self.folder.as_os_str().is_empty() { b"" } else { b"/" };
        [self.folder.as_os_str().as_bytes(), slash, self.name.as_bytes()]
    }

    /// Whether the walk started here.
    pub fn is_start(&self) -> bool {
        self.name.is_empty()
    }

    /// Whether both have the same path.
    pub(super) fn same_path(&self, other: &Self) -> bool {
        (self.folder, self.name) == (other.folder, other.name)
    }
}

/// What a walk found. It refers to the folders as they were read: in large trees, copying the
/// entries would take as long as finding them.
#[derive(Debug)]
pub struct Walk {
    /// The start as if it were alone in a folder, then the folders from there on.
    folders: Vec<Folder>,
}

/// A folder that was read.
#[derive(Debug)]
struct Folder {
    /// Relative to the start.
    path: PathBuf,
    entries: Entries,
    /// What of the entries is listed, in the same order.
    listed: Vec<Listed>,
}

#[derive(Debug)]
struct Listed {
    /// Its position among the entries.
    entry: usize,
    role: Role,
    /// For a folder that was entered, its position among the folders.
    below: Option<NonZeroUsize>,
}

impl Filter {
    /// Takes what `include` matches (everything, if it is empty) and `exclude` does not.
    pub fn new(include: &[String], exclude: &[String]) -> Result<Self, BadPattern> {
        let matcher = |patterns: &[String]| match patterns {
            [] => Ok(None),
            patterns => PatternMatcher::new(patterns).map(Some),
        };
        let reach = include.iter().map(|pattern| Reach::of(pattern)).collect();
        Ok(Self {
            include: matcher(include)?.map(|matcher| (matcher, reach)),
            exclude: matcher(exclude)?,
        })
    }

    /// Whether it takes everything.
    fn is_empty(&self) -> bool {
        self.include.is_none() && self.exclude.is_none()
    }

    /// Whether a folder that is not taken needs to be entered.
    fn enters(&self, path: &Path, included: bool, excluded: bool) -> bool {
        let reaches = match &self.include {
            Some((_, reaches)) => {
                included || reaches.iter().any(|reach| reach.may_match_below(path))
            }
            None => true,
        };
        let excepted = match &self.exclude {
            Some(exclude) => !excluded || exclude.may_except_below(path.as_os_str().as_bytes()),
            None => true,
        };
        reaches && excepted
    }
}

impl Reach {
    fn of(pattern: &str) -> Self {
        let literal = pattern
            .split('/')
            .take_while(|name| !has_wildcards(name) && !name.contains('\\'))
            .collect();
        // An exception or a pattern with ** or a class may reach any depth.
        let any_depth = pattern.starts_with('!') || pattern.contains("**") || pattern.contains('[');
        Self { literal, depth: (!any_depth).then(|| pattern.split('/').count()) }
    }

    fn may_match_below(&self, dir: &Path) -> bool {
        let agrees = self.literal.iter().zip(dir).all(|(a, b)| a == b);
        agrees && self.depth.is_none_or(|depth| dir.iter().count() < depth)
    }
}

/// A folder to be read.
struct Unread {
    /// Relative to the start.
    path: PathBuf,
    included: ParentMatch,
    excluded: ParentMatch,
}

/// Everything that `filter` takes of `start` and, if it is a folder, from below it.
///
/// On a thread of a pool, folders are read in parallel.
pub fn walk(
    tree: &dyn SourceTree,
    start: &Path,
    entry: &Entry,
    filter: &Filter,
) -> Result<Walk, TreeError> {
    let mut level = Vec::new();
    if entry.is_dir() {
        let (included, excluded) = Default::default();
        level.push(Unread { path: PathBuf::new(), included, excluded });
    }
    let below = NonZeroUsize::new(level.len());
    let mut folders = vec![Folder {
        path: PathBuf::new(),
        entries: Arc::new(vec![(OsString::new(), entry.clone())]),
        listed: vec![Listed { entry: 0, role: Role::Taken, below }],
    }];
    // A level at a time.
    while !level.is_empty() {
        let in_pool = level.len() > 1 && rayon::current_thread_index().is_some();
        let read = |folder| read_folder(tree, start, folder, filter);
        let found: Vec<Result<_, TreeError>> = if in_pool {
            level.into_par_iter().map(read).collect()
        } else {
            level.into_iter().map(read).collect()
        };
        // The next level follows this one.
        let next = folders.len() + found.len();
        level = Vec::new();
        for one in found {
            let (mut folder, unread) = one?;
            for (at, unread) in unread {
                folder.listed[at].below = NonZeroUsize::new(next + level.len());
                level.push(unread);
            }
            folders.push(folder);
        }
    }
    let mut walk = Walk { folders };
    walk.drop_dead_ends();
    Ok(walk)
}

/// Reads a folder, and tells which of those listed are to be read next.
fn read_folder(
    tree: &dyn SourceTree,
    start: &Path,
    folder: Unread,
    filter: &Filter,
) -> Result<(Folder, Vec<(usize, Unread)>), TreeError> {
    let Unread { path, included, excluded } = folder;
    // Joining an empty path would add a slash.
    let at = if path.as_os_str().is_empty() { start.to_owned() } else { start.join(&path) };
    let entries = tree.read_dir(&at)?;
    let mut listed = Vec::with_capacity(entries.len());
    let mut unread = Vec::new();
    for (at, (name, entry)) in entries.iter().enumerate() {
        if filter.is_empty() && !entry.is_dir() {
            listed.push(Listed { entry: at, role: Role::Taken, below: None });
            continue;
        }
        let path = join(&path, name);
        let bytes = path.as_os_str().as_bytes();
        let (is_in, included) = match &filter.include {
            Some((matcher, _)) => matcher.matches_below(bytes, &included),
            None => (true, ParentMatch::default()),
        };
        let (is_out, excluded) = match &filter.exclude {
            Some(matcher) => matcher.matches_below(bytes, &excluded),
            None => (false, ParentMatch::default()),
        };
        let taken = is_in && !is_out;
        let is_entered = entry.is_dir() && filter.enters(&path, is_in, is_out);
        if is_entered {
            unread.push((listed.len(), Unread { path, included, excluded }));
        }
        if taken || is_entered {
            let role = if taken { Role::Taken } else { Role::OnTheWay };
            listed.push(Listed { entry: at, role, below: None });
        }
    }
    Ok((Folder { path, entries, listed }, unread))
}

/// [`Path::join`] for a clean path, with one allocation.
fn join(folder: &Path, name: &OsStr) -> PathBuf {
    let mut path = OsString::with_capacity(folder.as_os_str().len() + 1 + name.len());
    path.push(folder);
    if !path.is_empty() {
        path.push("/");
    }
    path.push(name);
    path.into()
}

impl Walk {
    /// The number of items.
    #[allow(clippy::len_without_is_empty, reason = "the start is always there")]
    pub fn len(&self) -> usize {
        self.folders.iter().map(|folder| folder.listed.len()).sum()
    }

    /// The items, parents before their entries and entries in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = WalkItem<'_>> {
        self.places().map(|place| self.item(place))
    }

    /// Where the items are, in the order of [`Walk::iter`]: number of a folder, position in it.
    pub(super) fn places(&self) -> impl Iterator<Item = (usize, usize)> {
        let mut open = vec![(0, 0)];
        std::iter::from_fn(move || {
            loop {
                let (folder, next) = open.last_mut()?;
                let place = (*folder, *next);
                match self.folders[place.0].listed.get(place.1) {
                    Some(listed) => {
                        *next += 1;
                        open.extend(listed.below.map(|below| (below.get(), 0)));
                        return Some(place);
                    }
                    None => open.pop(),
                };
            }
        })
    }

    /// The item at a place.
    pub(super) fn item(&self, (folder, at): (usize, usize)) -> WalkItem<'_> {
        let Folder { path, entries, listed } = &self.folders[folder];
        let (name, entry) = &entries[listed[at].entry];
        WalkItem { folder: path, name, entry, role: listed[at].role }
    }

    /// The number of folders that [`Walk::places`] speaks of.
    pub(super) fn folders(&self) -> usize {
        self.folders.len()
    }

    /// The items in a folder.
    pub(super) fn items_in(&self, folder: usize) -> impl Iterator<Item = WalkItem<'_>> {
        (0..self.folders[folder].listed.len()).map(move |at| self.item((folder, at)))
    }

    /// Takes folders out that are not taken themselves and lead to nothing that is.
    fn drop_dead_ends(&mut self) {
        for at in (0..self.folders.len()).rev() {
            if self.folders[at].listed.iter().all(|listed| listed.role == Role::Taken) {
                continue;
            }
            let mut listed = std::mem::take(&mut self.folders[at].listed);
            listed.retain(|one| {
                let leads_on = |below: NonZeroUsize| !self.folders[below.get()].listed.is_empty();
                one.role == Role::Taken || one.below.is_some_and(leads_on)
            });
            self.folders[at].listed = listed;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::fixture::World;

    #[test]
    fn items_come_in_the_order_of_names_without_dead_ends() {
        let mut world = World::new();
        let lines = "a/x = 1\na.txt = 2\na/y/z = 3\nb/c/d = 4\nb/e = 5\nf/g/h/";
        let tree = world.context(lines, &[]);
        let root = tree.lookup(Path::new("")).expect("root").expect("root");
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("threads");
        let paths = |include: &[&str]| {
            let include: Vec<String> = include.iter().map(|text| (*text).to_owned()).collect();
            let filter = Filter::new(&include, &[]).expect("patterns");
            let list = || -> Vec<String> {
                let found = walk(&tree, Path::new(""), &root, &filter).expect("walk");
                assert_eq!(found.len(), found.iter().count());
                let mark = |role| if role == Role::Taken { "" } else { "?" };
                let item = |i: WalkItem<'_>| format!("{}{}", i.path().display(), mark(i.role));
                found.iter().map(item).collect()
            };
            let alone = list();
            assert_eq!(pool.install(list), alone);
            alone.join(" ")
        };
        assert_eq!(paths(&[]), " a a/x a/y a/y/z a.txt b b/c b/c/d b/e f f/g f/g/h");
        assert_eq!(paths(&["*/c/d"]), " b? b/c? b/c/d");
        assert_eq!(paths(&["f/g/none", "a*"]), " a a/x a/y a/y/z a.txt");
    }
}
