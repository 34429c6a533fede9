//! Tells whether a copy or mount of a selection sees the same in two trees.
//!
//! [`selection_digest`](super::selection_digest) answers this for trees that are not there at the
//! same time. Where both are, comparing is cheaper: what two stacks of layers share is not read at
//! all, and the first difference ends it.

use std::{collections::HashMap, fs::File, io, path::Path};

use rayon::prelude::*;
use rbc_ir::Selection;

use super::{
    Entry, Filter, Kind, Selected, SourceTree, TreeError, Walk, WalkItem, select, split_pivot, walk,
};
use crate::read_buffer::read_full;

/// Whether the last name of a selected path shows in what is made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// It does: what is selected is put into a folder under its own name.
    Count,
    /// It does not: what is selected gets another name.
    DoNotCount,
}

/// Whether a selection stands for the same in both trees: the same paths with the same types,
/// permission bits, owners, attributes, contents and hard links among them. Times do not count.
///
/// A path that is missing from both trees is the same; from one of them, a difference.
pub fn same_selection(
    one: &dyn SourceTree,
    other: &dyn SourceTree,
    selection: &Selection,
    names: Names,
) -> Result<bool, TreeError> {
    if !selection.parents {
        let filter = Filter::new(&[], &selection.exclude)?;
        return same_selected(one, other, selection, &filter, names);
    }
    // Each path is an include pattern of its own, below the folder before its pivot.
    for path in &selection.paths {
        let alone = Selection { paths: vec![path.clone()], ..selection.clone() };
        let filter = Filter::new(&[split_pivot(&path.path).1], &selection.exclude)?;
        if !same_selected(one, other, &alone, &filter, names)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn same_selected(
    one: &dyn SourceTree,
    other: &dyn SourceTree,
    selection: &Selection,
    filter: &Filter,
    names: Names,
) -> Result<bool, TreeError> {
    let (found, others) = match (select(one, selection), select(other, selection)) {
        (Err(TreeError::NotFound(..)), Err(TreeError::NotFound(..))) => return Ok(true),
        (Err(TreeError::NotFound(..)), Ok(_)) | (Ok(_), Err(TreeError::NotFound(..))) => {
            return Ok(false);
        }
        (found, others) => (found?, others?),
    };
    if found.len() != others.len() {
        return Ok(false);
    }
    for (a, b) in found.iter().zip(&others) {
        let renamed = a.named.file_name() != b.named.file_name();
        if renamed && names == Names::Count || !same_below(one, a, other, b, filter)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn same_below(
    one: &dyn SourceTree,
    a: &Selected,
    other: &dyn SourceTree,
    b: &Selected,
    filter: &Filter,
) -> Result<bool, TreeError> {
    let items = walk(one, &a.path, &a.entry, filter)?;
    let others = walk(other, &b.path, &b.entry, filter)?;
    if items.len() != others.len() {
        return Ok(false);
    }
    let pairs: Vec<(WalkItem<'_>, WalkItem<'_>)> = items.iter().zip(others.iter()).collect();
    if pairs.iter().any(|(x, y)| !same_facts(x, y)) || hard_links(&items) != hard_links(&others) {
        return Ok(false);
    }
    let differ = pairs.par_iter().with_min_len(16).find_map_any(|(x, y)| {
        let (x_path, y_path) = (x.path_from(&a.path), y.path_from(&b.path));
        match same_content((one, &x_path, x.entry), (other, &y_path, y.entry)) {
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

fn same_facts(x: &WalkItem<'_>, y: &WalkItem<'_>) -> bool {
    let (a, b) = (x.entry, y.entry);
    let same_size = a.kind != Kind::File || a.size == b.size;
    let same_device = !matches!(a.kind, Kind::Char | Kind::Block) || a.device == b.device;
    x.same_path(y)
        && x.role == y.role
        && (a.kind, a.mode, a.uid, a.gid) == (b.kind, b.mode, b.uid, b.gid)
        && same_size
        && same_device
}

/// For each item the position of the first one that is the same file.
fn hard_links(items: &Walk) -> Vec<usize> {
    let mut first: HashMap<(u64, u64), usize> = HashMap::new();
    let position = |(at, item): (usize, WalkItem<'_>)| match item.entry.kind {
        Kind::Dir => at,
        _ => *first.entry(item.entry.inode).or_insert(at),
    };
    items.iter().enumerate().map(position).collect()
}

type Place<'a> = (&'a dyn SourceTree, &'a Path, &'a Entry);

/// Whether two entries with the same facts have the same attributes, link target and content.
fn same_content(a: Place<'_>, b: Place<'_>) -> Result<bool, TreeError> {
    let ((one, a_path, a), (other, b_path, b)) = (a, b);
    match a.kind {
        // The very same file of a layer that both trees have.
        _ if a.inode == b.inode && a.inode != (0, 0) => Ok(true),
        Kind::Symlink => Ok(one.read_link(a_path, a)? == other.read_link(b_path, b)?),
        Kind::Dir => Ok(one.xattrs(a_path, a)? == other.xattrs(b_path, b)?),
        Kind::File => {
            if one.xattrs(a_path, a)? != other.xattrs(b_path, b)? {
                return Ok(false);
            }
            let (a, b) = (one.open(a_path, a)?, other.open(b_path, b)?);
            same_bytes(a, b).map_err(|error| TreeError::io(a_path, error))
        }
        Kind::Fifo | Kind::Char | Kind::Block | Kind::Socket => Ok(true),
    }
}

/// Whether two files hold the same bytes.
pub(crate) fn same_bytes(mut a: File, mut b: File) -> io::Result<bool> {
    let (mut left, mut right) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let length = read_full(&mut a, &mut left)?;
        if length != read_full(&mut b, &mut right)? || left[..length] != right[..length] {
            return Ok(false);
        }
        if length < left.len() {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use rbc_ir::SelectPath;

    use super::*;
    use crate::tree::{LayerStack, fixture::World};

    fn selecting(path: &str) -> Selection {
        let paths = vec![SelectPath { path: path.into(), wildcard: true }];
        Selection { paths, follow_symlinks: true, ..Selection::default() }
    }

    fn same(one: &str, other: &str, path: &str) -> bool {
        let mut world = World::new();
        let (one, other) = (world.base(one), world.base(other));
        same_selection(&one, &other, &selecting(path), Names::Count).expect("readable trees")
    }

    #[test]
    fn only_what_is_selected_counts() {
        assert!(same("a/x = 1\nb = 1", "a/x = 1\nb = 2", "a"));
        assert!(!same("a/x = 1\nb = 1", "a/x = 1\nb = 2", "b"));
        assert!(!same("a/x = 1", "a/x = 1\na/y = 2", "a"));
        assert!(same("a = 1", "a = 1", "missing"));
        assert!(!same("a = 1", "b = 1", "a"));
    }

    #[test]
    fn every_fact_that_a_copy_takes_over_counts() {
        let base = "d/f 644 0:0 = 1\nd/l -> f\nd/e/";
        assert!(same(base, base, "d"));
        for (what, other) in [
            ("content", "d/f 644 0:0 = 2\nd/l -> f\nd/e/"),
            ("mode", "d/f 600 0:0 = 1\nd/l -> f\nd/e/"),
            ("owner", "d/f 644 5:0 = 1\nd/l -> f\nd/e/"),
            ("group", "d/f 644 0:5 = 1\nd/l -> f\nd/e/"),
            ("link target", "d/f 644 0:0 = 1\nd/l -> e\nd/e/"),
            ("type", "d/f 644 0:0 = 1\nd/l -> f\nd/e 755 = "),
        ] {
            assert!(!same(base, other, "d"), "{what}");
        }
        assert!(same("d/a = 1\nd/b => d/a", "d/a = 1\nd/b => d/a", "d"));
        assert!(!same("d/a = 1\nd/b => d/a", "d/a = 1\nd/b = 1", "d"), "hard links");
    }

    #[test]
    fn what_a_lower_layer_hides_does_not_count() {
        let mut world = World::new();
        let low = world.tree("a/x = old\na/gone = 1");
        let high = world.tree("a/x = new\na/gone !");
        let stack = LayerStack::new(vec![low, high]);
        let flat = world.base("a/x = new");
        let names = Names::Count;
        assert!(same_selection(&stack, &flat, &selecting("a"), names).expect("readable trees"));
    }

    #[test]
    fn a_name_counts_only_where_it_shows() {
        let mut world = World::new();
        let (one, other) = (world.base("app-1.2 = same"), world.base("app-1.3 = same"));
        let same =
            |names| same_selection(&one, &other, &selecting("app-*"), names).expect("readable");
        assert!(!same(Names::Count));
        assert!(same(Names::DoNotCount));
    }

    #[test]
    fn files_are_compared_to_their_ends() {
        let long = |last: char| format!("f = {}{last}", "x".repeat(3 << 16));
        assert!(same(&long('a'), &long('a'), "f"));
        assert!(!same(&long('a'), &long('b'), "f"));
        let exact = format!("f = {}", "x".repeat(1 << 16));
        assert!(same(&exact, &exact, "f"));
    }
}
