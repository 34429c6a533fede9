//! From a layer's folder to its tar (OCI image-spec, layer.md).

use std::{
    collections::HashMap,
    ffi::OsString,
    fs::{self, File, Metadata},
    io::{self, Read, Write},
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    },
    path::Path,
};

use rustix::io::Errno;

use super::{
    CAPABILITY, DEFAULT_EPOCH, LayerError, MADE_NSEC, OPAQUE,
    header::{BLOCK, Head, RawXattrs},
    owner,
};

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

/// Writes the tar of the layer in the folder `dir`: entries sorted by name, a folder before what is
/// in it; numeric owners; PAX records only for what the plain header cannot say.
pub fn write_tar(dir: &Path, out: &mut dyn Write, options: &TarOptions) -> Result<(), LayerError> {
    let mut writer = Writer { out, options, links: HashMap::new(), buffer: vec![0; 256 << 10] };
    // One iterator for each folder from the root to the current one.
    let mut stack = vec![sorted_names(dir)?.into_iter()];
    let mut host = dir.to_owned();
    let mut name: Vec<u8> = Vec::new();
    while let Some(level) = stack.last_mut() {
        let Some(next) = level.next() else {
            stack.pop();
            host.pop();
            name.truncate(name.iter().rposition(|b| *b == b'/').unwrap_or(0));
            continue;
        };
        host.push(&next);
        if !name.is_empty() {
            name.push(b'/');
        }
        name.extend_from_slice(next.as_bytes());
        let facts = fs::symlink_metadata(&host).map_err(LayerError::io(&host))?;
        writer.entry(&host, &name, &facts)?;
        if facts.is_dir() {
            stack.push(sorted_names(&host)?.into_iter());
        } else {
            host.pop();
            name.truncate(name.iter().rposition(|b| *b == b'/').unwrap_or(0));
        }
    }
    writer.out.write_all(&[0; 2 * BLOCK as usize]).map_err(LayerError::Output)
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

struct Writer<'a> {
    out: &'a mut dyn Write,
    options: &'a TarOptions,
    /// Files with several names, by device and inode: the first name.
    links: HashMap<(u64, u64), Vec<u8>>,
    buffer: Vec<u8>,
}

impl Writer<'_> {
    fn entry(&mut self, host: &Path, name: &[u8], facts: &Metadata) -> Result<(), LayerError> {
        let kind = facts.file_type();
        if kind.is_socket() {
            return Ok(());
        }
        if kind.is_char_device() && facts.rdev() == 0 {
            let start = name.iter().rposition(|b| *b == b'/').map_or(0, |slash| slash + 1);
            let hidden = [&name[..start], b".wh.", &name[start..]].concat();
            return self.empty_file(&hidden);
        }
        let (uid, gid) =
            owner::get(host, facts.uid(), facts.gid()).map_err(LayerError::io(host))?;
        let mut head = Head {
            name: name.to_vec(),
            kind: b'0',
            mode: facts.mode() & 0o7777,
            uid,
            gid,
            size: 0,
            mtime: self.options.mtime(facts),
            link: Vec::new(),
            device: None,
            xattrs: Vec::new(),
        };
        if kind.is_file() {
            head.xattrs = kept_xattrs(host)?;
        }
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
        if kind.is_file() {
            self.content(host, head.size)?;
        }
        Ok(())
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
        let mut file = File::options()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(host)
            .map_err(LayerError::io(host))?;
        let mut left = size;
        while left > 0 {
            let want = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let n = file.read(&mut self.buffer[..want]).map_err(LayerError::io(host))?;
            if n == 0 {
                return Err(LayerError::io(host)(io::ErrorKind::UnexpectedEof.into()));
            }
            self.out.write_all(&self.buffer[..n]).map_err(LayerError::Output)?;
            left -= n as u64;
        }
        let padding = (BLOCK - size % BLOCK) % BLOCK;
        self.out.write_all(&[0; BLOCK as usize][..padding as usize]).map_err(LayerError::Output)
    }
}

pub(super) fn has_xattr(path: &Path, name: &str) -> bool {
    let mut value = [0; 16];
    rustix::fs::lgetxattr(path, name, &mut value[..]).is_ok()
}

/// The attributes that belong into a layer: file capabilities alone, as in BuildKit's layers.
/// Everything else is the business of the machine that it was set on.
fn kept_xattrs(path: &Path) -> Result<RawXattrs, LayerError> {
    // A capability has 24 bytes (`struct vfs_ns_cap_data`).
    let mut value = [0; 64];
    match rustix::fs::lgetxattr(path, CAPABILITY, &mut value[..]) {
        Ok(length) => Ok(vec![(CAPABILITY.into(), value[..length].to_vec())]),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(Vec::new()),
        Err(e) => Err(LayerError::os(path)(e)),
    }
}
