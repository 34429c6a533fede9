//! The merged files of a target as one plain tar (`type=tar`).

use std::{
    collections::HashMap,
    ffi::OsString,
    io::{self, Read, Write},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{ExportError, statements::StatementFile};
use crate::{
    layer::{self, BLOCK, Head},
    tree::{Entry, Kind, LayerStack, SourceTree},
};

/// What modification times files are written with.
pub(super) struct Times {
    /// `SOURCE_DATE_EPOCH`.
    pub(super) epoch: Option<i64>,
}

impl Times {
    /// The time that an output shows for a file: that of the image for files made by the build,
    /// never later than `SOURCE_DATE_EPOCH`. Seconds since the epoch.
    pub(super) fn of(&self, entry: &Entry) -> i64 {
        let (seconds, nanoseconds) = entry.mtime;
        if nanoseconds == layer::MADE_NSEC {
            return self.of_made();
        }
        self.epoch.map_or(seconds, |epoch| seconds.min(epoch))
    }

    /// The time of what the build itself made.
    pub(super) fn of_made(&self) -> i64 {
        self.epoch.unwrap_or(layer::DEFAULT_EPOCH)
    }
}

/// Writes one tar with the files of all trees, each below its folder (empty: the top), and behind
/// them what is stated about them.
pub(super) fn write_tar(
    trees: &[(String, LayerStack)],
    documents: &[Vec<StatementFile>],
    out: &mut dyn Write,
    times: &Times,
) -> Result<(), ExportError> {
    for (folder, tree) in trees {
        let prefix = Path::new(folder);
        if !folder.is_empty() {
            let root = tree.lookup(Path::new(""))?.unwrap_or_else(Entry::empty_root);
            put(out, tree, prefix, Path::new(""), &root, None, times)?;
        }
        let mut links: HashMap<(u64, u64), PathBuf> = HashMap::new();
        each(tree, &mut |path, entry| {
            let name = prefix.join(path);
            let first = linked(&mut links, &name, entry);
            put(out, tree, &name, path, entry, first.as_deref(), times)
        })?;
    }
    for ((folder, _), documents) in trees.iter().zip(documents) {
        for document in documents {
            let name = Path::new(folder).join(&document.name);
            put_document(out, &name, &document.json, times)?;
        }
    }
    out.write_all(&[0; 1024]).map_err(ExportError::write("the tar"))
}

/// Visits all entries below the root, folders before what is in them, in the order of their names.
pub(super) fn each(
    tree: &dyn SourceTree,
    visit: &mut dyn FnMut(&Path, &Entry) -> Result<(), ExportError>,
) -> Result<(), ExportError> {
    let list = |folder: &Path| -> Result<Vec<(OsString, Entry)>, ExportError> {
        let mut entries = Arc::unwrap_or_clone(tree.read_dir(folder)?);
        entries.reverse();
        Ok(entries)
    };
    // A stack of unfinished folders stands in for recursion.
    let mut stack = vec![(PathBuf::new(), list(Path::new(""))?)];
    while let Some((folder, entries)) = stack.last_mut() {
        let Some((name, entry)) = entries.pop() else {
            stack.pop();
            continue;
        };
        let path = folder.join(name);
        visit(&path, &entry)?;
        if entry.is_dir() {
            let entries = list(&path)?;
            stack.push((path, entries));
        }
    }
    Ok(())
}

/// The name under which the same file was written before, if it was.
pub(super) fn linked(
    links: &mut HashMap<(u64, u64), PathBuf>,
    name: &Path,
    entry: &Entry,
) -> Option<PathBuf> {
    if entry.is_dir() || entry.links < 2 {
        return None;
    }
    match links.get(&entry.inode) {
        Some(first) => Some(first.clone()),
        None => {
            links.insert(entry.inode, name.to_owned());
            None
        }
    }
}

/// Writes one entry.
fn put(
    out: &mut dyn Write,
    tree: &dyn SourceTree,
    name: &Path,
    path: &Path,
    entry: &Entry,
    first: Option<&Path>,
    times: &Times,
) -> Result<(), ExportError> {
    let failed = |source| ExportError::write("the tar")(source);
    let mut head = Head {
        name: name.as_os_str().as_bytes().to_vec(),
        kind: b'0',
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        size: 0,
        mtime: times.of(entry),
        link: Vec::new(),
        device: None,
        xattrs: Vec::new(),
    };
    let device = || Some((rustix::fs::major(entry.device), rustix::fs::minor(entry.device)));
    match (first, entry.kind) {
        (Some(first), _) => {
            head.kind = b'1';
            head.link = first.as_os_str().as_bytes().to_vec();
        }
        (None, Kind::File) => head.size = entry.size,
        (None, Kind::Dir) => {
            head.kind = b'5';
            head.name.push(b'/');
        }
        (None, Kind::Symlink) => {
            head.kind = b'2';
            head.link = tree.read_link(path, entry)?.as_os_str().as_bytes().to_vec();
        }
        (None, Kind::Fifo) => head.kind = b'6',
        (None, Kind::Char) => (head.kind, head.device) = (b'3', device()),
        (None, Kind::Block) => (head.kind, head.device) = (b'4', device()),
        // A tar cannot hold one, and it means nothing without its process.
        (None, Kind::Socket) => return Ok(()),
    }
    if first.is_none() && entry.kind == Kind::File {
        let xattrs = tree.xattrs(path, entry)?;
        head.xattrs = xattrs.into_iter().map(|(k, v)| (k.into_encoded_bytes(), v)).collect();
    }
    out.write_all(&head.encode()).map_err(failed)?;
    if head.size > 0 {
        let mut file = tree.open(path, entry)?.take(head.size);
        let copied = crate::image::copy(&mut file, out).map_err(failed)?;
        if copied != head.size {
            let error = io::Error::new(io::ErrorKind::UnexpectedEof, "it became shorter");
            return Err(ExportError::write(name)(error));
        }
        let padding = head.size.next_multiple_of(BLOCK) - head.size;
        out.write_all(&[0; BLOCK as usize][..padding as usize]).map_err(failed)?;
    }
    Ok(())
}

/// Writes a file that is in no tree.
fn put_document(
    out: &mut dyn Write,
    name: &Path,
    content: &[u8],
    times: &Times,
) -> Result<(), ExportError> {
    let size = content.len() as u64;
    let head = Head {
        name: name.as_os_str().as_bytes().to_vec(),
        kind: b'0',
        mode: 0o644,
        uid: 0,
        gid: 0,
        size,
        mtime: times.of_made(),
        link: Vec::new(),
        device: None,
        xattrs: Vec::new(),
    };
    let padding = (size.next_multiple_of(BLOCK) - size) as usize;
    out.write_all(&head.encode())
        .and_then(|()| out.write_all(content))
        .and_then(|()| out.write_all(&[0; BLOCK as usize][..padding]))
        .map_err(ExportError::write("the tar"))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt};

    use super::*;

    #[test]
    fn files_of_the_build_get_the_time_of_the_image() {
        let made = Entry { mtime: (9_000, layer::MADE_NSEC), ..Entry::empty_root() };
        let copied = Entry { mtime: (9_000, 1), ..made.clone() };
        let show = |epoch| [&made, &copied].map(|entry| Times { epoch }.of(entry));
        assert_eq!(show(None), [layer::DEFAULT_EPOCH, 9_000]);
        assert_eq!(show(Some(10_000)), [10_000, 9_000]);
        assert_eq!(show(Some(5)), [5, 5]);
    }

    #[test]
    fn merged_files_are_written_in_order() {
        let dir = tempfile::tempdir().expect("folder");
        let layer = dir.path().join("layer");
        fs::create_dir_all(layer.join("b/deep")).expect("mkdir");
        fs::write(layer.join("b/file"), "hello").expect("write");
        fs::hard_link(layer.join("b/file"), layer.join("b/link")).expect("link");
        std::os::unix::fs::symlink("/b/file", layer.join("a")).expect("symlink");
        fs::write(layer.join("z".repeat(150)), "").expect("write");
        let trees = [(String::new(), LayerStack::new(vec![layer.clone()]))];
        let mut bytes = Vec::new();
        write_tar(&trees, &[], &mut bytes, &Times { epoch: Some(5) }).expect("tar");
        let uid = fs::metadata(&layer).expect("metadata").uid();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let mut seen = Vec::new();
        for entry in archive.entries().expect("entries") {
            let entry = entry.expect("entry");
            let header = entry.header();
            assert_eq!(header.mtime().expect("mtime"), 5);
            assert_eq!(header.uid().expect("uid"), u64::from(uid));
            let link = entry.link_name().expect("link").map(|l| format!(" -> {}", l.display()));
            seen.push(format!(
                "{:?} {}{}",
                header.entry_type(),
                entry.path().expect("path").display().to_string().replace("zzzzzzzzzz", "z"),
                link.unwrap_or_default()
            ));
        }
        insta::assert_snapshot!(seen.join("\n"), @"
        Symlink a -> /b/file
        Directory b/
        Directory b/deep/
        Regular b/file
        Link b/link -> b/file
        Regular zzzzzzzzzzzzzzz
        ");
    }
}
