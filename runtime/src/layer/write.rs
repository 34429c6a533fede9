//! From a layer's folder to its tar (OCI image-spec, layer.md).

use std::{
    collections::HashMap,
    ffi::OsString,
    fs::{self, File, FileType, Metadata},
    io::{self, Read, Write},
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use rayon::prelude::*;
use rustix::io::Errno;

use super::{
    CAPABILITY, DEFAULT_EPOCH, LayerError, MADE_NSEC, OPAQUE,
    header::{BLOCK, Head, RawXattrs},
    owner,
};
use crate::read_buffer;

/// How a layer is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TarOptions {
    /// `SOURCE_DATE_EPOCH` in seconds: the time of everything that is newer.
    pub source_date_epoch: Option<i64>,
}

impl TarOptions {
    /// The mtime of an entry in the tar, in whole seconds.
    fn mtime(&self, facts: &Metadata) -> i64 {
        let made = is_made(facts);
        match self.source_date_epoch {
            Some(epoch) if made || facts.mtime() > epoch => epoch,
            None if made => DEFAULT_EPOCH,
            _ => facts.mtime(),
        }
    }
}

/// Whether a file was made by the build itself.
pub(super) fn is_made(facts: &Metadata) -> bool {
    facts.mtime_nsec() == i64::from(MADE_NSEC)
}

/// How many entries are looked at together, on all threads, before they are written.
const BATCH: usize = 256;
/// Up to this length the content of a file is read along with its facts, in bytes. Batches of such
/// files bound what is held in memory.
const SMALL: u64 = 16 << 10;

/// Writes the tar of the layer in the folder `dir`: entries sorted by name, a folder before what is
/// in it; numeric owners; PAX records only for what the plain header cannot say.
pub fn write_tar(dir: &Path, out: &mut dyn Write, options: &TarOptions) -> Result<(), LayerError> {
    let mut writer = Writer { out, options, links: HashMap::new() };
    // One iterator for each folder from the root to the current one.
    let mut stack = vec![sorted_entries(dir)?.into_iter()];
    let mut path = PathBuf::new();
    let mut batch = Vec::with_capacity(BATCH);
    while let Some(level) = stack.last_mut() {
        let Some((name, kind)) = level.next() else {
            stack.pop();
            path.pop();
            continue;
        };
        path.push(name);
        batch.push((path.clone(), kind));
        if kind.is_dir() {
            stack.push(sorted_entries(&dir.join(&path))?.into_iter());
        } else {
            path.pop();
        }
        if batch.len() == BATCH {
            writer.entries(dir, &batch)?;
            batch.clear();
        }
    }
    writer.entries(dir, &batch)?;
    writer.out.write_all(&[0; 2 * BLOCK as usize]).map_err(LayerError::Output)
}

/// What is in a folder, with its type, by name.
fn sorted_entries(dir: &Path) -> Result<Vec<(OsString, FileType)>, LayerError> {
    let mut entries = fs::read_dir(dir)
        .map_err(LayerError::io(dir))?
        .map(|entry| entry.and_then(|e| Ok((e.file_name(), e.file_type()?))))
        .collect::<io::Result<Vec<_>>>()
        .map_err(LayerError::io(dir))?;
    entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    Ok(entries)
}

pub(super) fn sorted_names(dir: &Path) -> Result<Vec<OsString>, LayerError> {
    let mut names = fs::read_dir(dir)
        .map_err(LayerError::io(dir))?
        .map(|entry| entry.map(|e| e.file_name()))
        .collect::<io::Result<Vec<_>>>()
        .map_err(LayerError::io(dir))?;
    names.sort_unstable();
    Ok(names)
}

/// An entry that was looked at.
struct Seen {
    facts: Metadata,
    owner: (u32, u32),
    xattrs: RawXattrs,
    /// The content of a small file.
    content: Option<Vec<u8>>,
}

impl Seen {
    fn look(host: &Path, kind: FileType) -> io::Result<Self> {
        if !kind.is_file() {
            let facts = fs::symlink_metadata(host)?;
            let owner = owner::get(host, facts.uid(), facts.gid())?;
            return Ok(Self { facts, owner, xattrs: Vec::new(), content: None });
        }
        // By the opened file, so that its path is followed once.
        let mut file = open(host)?;
        let facts = file.metadata()?;
        let owner = owner::get(host, facts.uid(), facts.gid())?;
        let xattrs = kept_xattrs(&file)?;
        let content = match facts.len() {
            size if size <= SMALL => {
                let mut content = vec![0; size as usize];
                file.read_exact(&mut content)?;
                Some(content)
            }
            _ => None,
        };
        Ok(Self { facts, owner, xattrs, content })
    }
}

fn open(host: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(libc::O_NOFOLLOW).open(host)
}

struct Writer<'a> {
    out: &'a mut dyn Write,
    options: &'a TarOptions,
    /// Files with several names, by device and inode: the first name.
    links: HashMap<(u64, u64), Vec<u8>>,
}

impl Writer<'_> {
    /// Writes entries of the folder `dir` by their paths in it.
    fn entries(&mut self, dir: &Path, batch: &[(PathBuf, FileType)]) -> Result<(), LayerError> {
        let look = |(path, kind): &(PathBuf, FileType)| {
            let host = dir.join(path);
            Seen::look(&host, *kind).map_err(LayerError::io(&host))
        };
        let seen: Vec<Seen> =
            batch.par_iter().with_min_len(16).map(look).collect::<Result<_, _>>()?;
        for ((path, _), seen) in batch.iter().zip(seen) {
            self.entry(&dir.join(path), path.as_os_str().as_bytes(), seen)?;
        }
        Ok(())
    }

    fn entry(&mut self, host: &Path, name: &[u8], seen: Seen) -> Result<(), LayerError> {
        let Seen { facts, owner: (uid, gid), xattrs, content } = seen;
        let kind = facts.file_type();
        if kind.is_socket() {
            return Ok(());
        }
        if kind.is_char_device() && facts.rdev() == 0 {
            let start = name.iter().rposition(|b| *b == b'/').map_or(0, |slash| slash + 1);
            let hidden = [&name[..start], b".wh.", &name[start..]].concat();
            return self.empty_file(&hidden);
        }
        let mut head = Head {
            name: name.to_vec(),
            kind: b'0',
            mode: facts.mode() & 0o7777,
            uid,
            gid,
            size: 0,
            mtime: self.options.mtime(&facts),
            link: Vec::new(),
            device: None,
            xattrs,
        };
        if kind.is_dir() {
            head.kind = b'5';
            head.name.push(b'/');
            self.out.write_all(&head.encode()).map_err(LayerError::Output)?;
            if has_xattr(host, OPAQUE) {
                let hidden = [name, b"/.wh..wh..opq"].concat();
                self.empty_file(&hidden)?;
            }
            return Ok(());
        }
        if facts.nlink() > 1 {
            let inode = (facts.dev(), facts.ino());
            if let Some(first) = self.links.get(&inode) {
                head.kind = b'1';
                head.link.clone_from(first);
                head.xattrs.clear();
                return self.out.write_all(&head.encode()).map_err(LayerError::Output);
            }
            self.links.insert(inode, name.to_vec());
        }
        if kind.is_symlink() {
            head.kind = b'2';
            head.mode = 0o777;
            head.link =
                fs::read_link(host).map_err(LayerError::io(host))?.into_os_string().into_vec();
        } else if kind.is_fifo() {
            head.kind = b'6';
        } else if kind.is_char_device() || kind.is_block_device() {
            head.kind = if kind.is_char_device() { b'3' } else { b'4' };
            let device = facts.rdev();
            head.device = Some((rustix::fs::major(device), rustix::fs::minor(device)));
        } else {
            head.size = facts.len();
        }
        self.out.write_all(&head.encode()).map_err(LayerError::Output)?;
        match content {
            Some(content) => self.out.write_all(&content).map_err(LayerError::Output)?,
            None if kind.is_file() => self.content(host, head.size)?,
            None => return Ok(()),
        }
        let padding = (BLOCK - head.size % BLOCK) % BLOCK;
        self.out.write_all(&[0; BLOCK as usize][..padding as usize]).map_err(LayerError::Output)
    }

    /// A whiteout. It always has the image's time: when something was removed says nothing.
    fn empty_file(&mut self, name: &[u8]) -> Result<(), LayerError> {
        let head = Head {
            name: name.to_vec(),
            kind: b'0',
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: self.options.source_date_epoch.unwrap_or(DEFAULT_EPOCH),
            link: Vec::new(),
            device: None,
            xattrs: Vec::new(),
        };
        self.out.write_all(&head.encode()).map_err(LayerError::Output)
    }

    fn content(&mut self, host: &Path, size: u64) -> Result<(), LayerError> {
        let mut file = open(host).map_err(LayerError::io(host))?;
        let mut left = size;
        read_buffer::with(|buffer| {
            while left > 0 {
                let want = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                let n = file.read(&mut buffer[..want]).map_err(LayerError::io(host))?;
                if n == 0 {
                    return Err(LayerError::io(host)(io::ErrorKind::UnexpectedEof.into()));
                }
                self.out.write_all(&buffer[..n]).map_err(LayerError::Output)?;
                left -= n as u64;
            }
            Ok(())
        })
    }
}

pub(super) fn has_xattr(path: &Path, name: &str) -> bool {
    let mut value = [0; 16];
    rustix::fs::lgetxattr(path, name, &mut value[..]).is_ok()
}

/// The attributes that belong into a layer: file capabilities alone, as in BuildKit's layers.
/// Everything else is the business of the machine that it was set on.
fn kept_xattrs(file: &File) -> io::Result<RawXattrs> {
    // A capability has 24 bytes (`struct vfs_ns_cap_data`).
    let mut value = [0; 64];
    match rustix::fs::fgetxattr(file, CAPABILITY, &mut value[..]) {
        Ok(length) => Ok(vec![(CAPABILITY.into(), value[..length].to_vec())]),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(Vec::new()),
        Err(e) => Err(e.into()),
    }
}
