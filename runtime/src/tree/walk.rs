//! Lists what a COPY takes from below one of its sources.

use std::{
    ffi::OsString,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    vec,
};

use rbc_ir::pattern::{BadPattern, ParentMatch, PatternMatcher};

use super::{Entry, SourceTree, TreeError, has_wildcards};

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
#[derive(Clone, Debug)]
pub struct WalkItem {
    /// Path relative to where the walk started; empty for the start.
    pub path: PathBuf,
    /// The entry.
    pub entry: Entry,
    /// Why it is listed.
    pub role: Role,
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

/// A folder whose entries are being walked.
struct Frame {
    path: PathBuf,
    entries: vec::IntoIter<(OsString, Entry)>,
    /// The folder itself, until it is listed.
    unlisted: Option<Entry>,
    included: ParentMatch,
    excluded: ParentMatch,
}

/// Everything that `filter` takes of `start` and, if it is a folder, from below it, parents before
/// their entries and entries in the order of their names.
pub fn walk(
    tree: &dyn SourceTree,
    start: &Path,
    entry: &Entry,
    filter: &Filter,
) -> Result<Vec<WalkItem>, TreeError> {
    let mut found =
        vec![WalkItem { path: PathBuf::new(), entry: entry.clone(), role: Role::Taken }];
    if !entry.is_dir() {
        return Ok(found);
    }
    let mut open = vec![Frame {
        path: PathBuf::new(),
        entries: tree.read_dir(start)?.into_iter(),
        unlisted: None,
        included: ParentMatch::default(),
        excluded: ParentMatch::default(),
    }];
    while let Some(frame) = open.last_mut() {
        let Some((name, entry)) = frame.entries.next() else {
            open.pop();
            continue;
        };
        let path = frame.path.join(name);
        let bytes = path.as_os_str().as_bytes();
        let (is_in, included) = match &filter.include {
            Some((matcher, _)) => matcher.matches_below(bytes, &frame.included),
            None => (true, ParentMatch::default()),
        };
        let (is_out, excluded) = match &filter.exclude {
            Some(matcher) => matcher.matches_below(bytes, &frame.excluded),
            None => (false, ParentMatch::default()),
        };
        let taken = is_in && !is_out;
        if taken {
            for frame in &mut open {
                if let Some(entry) = frame.unlisted.take() {
                    found.push(WalkItem { path: frame.path.clone(), entry, role: Role::OnTheWay });
                }
            }
            found.push(WalkItem { path: path.clone(), entry: entry.clone(), role: Role::Taken });
        }
        if entry.is_dir() && filter.enters(&path, is_in, is_out) {
            let below = start.join(&path);
            open.push(Frame {
                entries: tree.read_dir(&below)?.into_iter(),
                path,
                unlisted: (!taken).then_some(entry),
                included,
                excluded,
            });
        }
    }
    Ok(found)
}
