//! The merged files of a target as one plain tar (`type=tar`).

use std::{
    collections::HashMap,
    ffi::OsString,
    io::{self, Read, Write},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use super::ExportError;
use crate::{
    layer,
    tree::{Entry, Kind, LayerStack, SourceTree, Xattrs},
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
            return self.epoch.unwrap_or(layer::DEFAULT_EPOCH);
        }
        self.epoch.map_or(seconds, |epoch| seconds.min(epoch))
    }
}

/// Writes one tar with the files of all trees, each below its folder (empty: the top).
pub(super) fn write_tar(
    trees: &[(String, LayerStack)],
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
    out.write_all(&[0; 1024]).map_err(ExportError::write("the tar"))
}

/// Visits all entries below the root, folders before what is in them, in the order of their names.
pub(super) fn each(
    tree: &dyn SourceTree,
    visit: &mut dyn FnMut(&Path, &Entry) -> Result<(), ExportError>,
) -> Result<(), ExportError> {
    let list = |folder: &Path| -> Result<Vec<(OsString, Entry)>, ExportError> {
        let mut entries = tree.read_dir(folder)?;
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
    let mut item = Item {
        name: name.as_os_str().as_bytes().to_vec(),
        kind: tar::EntryType::Regular,
        link: Vec::new(),
        size: 0,
        mode: entry.mode,
        owner: (entry.uid, entry.gid),
        mtime: times.of(entry),
        device: (0, 0),
        xattrs: Vec::new(),
    };
    let major_minor = || (rustix::fs::major(entry.device), rustix::fs::minor(entry.device));
    match (first, entry.kind) {
        (Some(first), _) => {
            item.kind = tar::EntryType::Link;
            item.link = first.as_os_str().as_bytes().to_vec();
        }
        (None, Kind::File) => item.size = entry.size,
        (None, Kind::Dir) => {
            item.kind = tar::EntryType::Directory;
            item.name.push(b'/');
        }
        (None, Kind::Symlink) => {
            item.kind = tar::EntryType::Symlink;
            item.link = tree.read_link(path, entry)?.as_os_str().as_bytes().to_vec();
        }
        (None, Kind::Fifo) => item.kind = tar::EntryType::Fifo,
        (None, Kind::Char) => (item.kind, item.device) = (tar::EntryType::Char, major_minor()),
        (None, Kind::Block) => (item.kind, item.device) = (tar::EntryType::Block, major_minor()),
        // A tar cannot hold one, and it means nothing without its process.
        (None, Kind::Socket) => return Ok(()),
    }
    if first.is_none() && matches!(entry.kind, Kind::File | Kind::Dir) {
        item.xattrs = tree.xattrs(path, entry)?;
    }
    item.write_header(out).map_err(failed)?;
    if item.size > 0 {
        let mut file = tree.open(path, entry)?.take(item.size);
        let copied = crate::image::copy(&mut file, out).map_err(failed)?;
        if copied != item.size {
            let error = io::Error::new(io::ErrorKind::UnexpectedEof, "it became shorter");
            return Err(ExportError::write(name)(error));
        }
        let padding = item.size.next_multiple_of(512) - item.size;
        out.write_all(&[0; 512][..padding as usize]).map_err(failed)?;
    }
    Ok(())
}

/// One tar entry's header, with PAX records only for what the classic fields cannot hold.
struct Item {
    name: Vec<u8>,
    kind: tar::EntryType,
    link: Vec<u8>,
    size: u64,
    mode: u32,
    owner: (u32, u32),
    mtime: i64,
    device: (u32, u32),
    xattrs: Xattrs,
}

/// Largest number in the 7 octal digits of the fields for ids.
const MAX_ID: u32 = 0o7_777_777;
/// Largest number in the 11 octal digits of the fields for sizes and times.
const MAX_NUMBER: u64 = 0o77_777_777_777;

impl Item {
    fn write_header(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut records = Vec::new();
        let mut record = |key: &[u8], value: &[u8]| push_record(&mut records, key, value);
        if self.name.len() > 100 || !self.name.is_ascii() {
            record(b"path", &self.name);
        }
        if self.link.len() > 100 || !self.link.is_ascii() {
            record(b"linkpath", &self.link);
        }
        for (key, value, max) in [
            (&b"size"[..], self.size, MAX_NUMBER),
            (b"uid", self.owner.0.into(), MAX_ID.into()),
            (b"gid", self.owner.1.into(), MAX_ID.into()),
        ] {
            if value > max {
                record(key, value.to_string().as_bytes());
            }
        }
        let mtime = u64::try_from(self.mtime).ok().filter(|&mtime| mtime <= MAX_NUMBER);
        if mtime.is_none() {
            record(b"mtime", self.mtime.to_string().as_bytes());
        }
        for (name, value) in &self.xattrs {
            record(&[b"SCHILY.xattr.", name.as_bytes()].concat(), value);
        }
        if !records.is_empty() {
            let mut header = tar::Header::new_ustar();
            put_bytes(&mut header.as_old_mut().name, b"pax");
            header.set_entry_type(tar::EntryType::XHeader);
            header.set_size(records.len() as u64);
            finish(&mut header, 0o644, (0, 0), 0);
            out.write_all(header.as_bytes())?;
            out.write_all(&records)?;
            let padding = records.len().next_multiple_of(512) - records.len();
            out.write_all(&[0; 512][..padding])?;
        }
        let mut header = tar::Header::new_ustar();
        put_bytes(&mut header.as_old_mut().name, &self.name);
        put_bytes(&mut header.as_old_mut().linkname, &self.link);
        header.set_entry_type(self.kind);
        header.set_size(self.size.min(MAX_NUMBER));
        if matches!(self.kind, tar::EntryType::Char | tar::EntryType::Block) {
            header.set_device_major(self.device.0)?;
            header.set_device_minor(self.device.1)?;
        }
        let owner = (self.owner.0.min(MAX_ID), self.owner.1.min(MAX_ID));
        finish(&mut header, self.mode, owner, mtime.unwrap_or(0));
        out.write_all(header.as_bytes())
    }
}

fn finish(header: &mut tar::Header, mode: u32, owner: (u32, u32), mtime: u64) {
    header.set_mode(mode);
    header.set_uid(owner.0.into());
    header.set_gid(owner.1.into());
    header.set_mtime(mtime);
    header.set_cksum();
}

/// Fills a field with as much of `value` as it holds.
fn put_bytes(field: &mut [u8], value: &[u8]) {
    let length = field.len().min(value.len());
    field[..length].copy_from_slice(&value[..length]);
}

/// Appends `LENGTH KEY=VALUE\n`, where LENGTH counts itself.
fn push_record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(length.to_string().as_bytes());
    records.push(b' ');
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt};

    use super::*;

    #[test]
    fn pax_lengths_count_themselves() {
        for length in [0, 1, 86, 87, 88, 89, 90, 985, 986, 987, 988, 9_980, 9_990] {
            let mut records = Vec::new();
            push_record(&mut records, b"k", &vec![b'v'; length]);
            let text = String::from_utf8(records).expect("ascii");
            let (number, _) = text.split_once(' ').expect("a space");
            assert_eq!(number.parse::<usize>().expect("number"), text.len());
        }
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
        write_tar(&trees, &mut bytes, &Times { epoch: Some(5) }).expect("tar");
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
