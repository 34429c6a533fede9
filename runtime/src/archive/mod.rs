//! Reads tar archives from strangers: layers of images, archives that ADD unpacks, saved images.
//!
//! The stream is taken apart here block by block, with the `tar` crate as the codec of headers, so
//! that every length is bounded before anything is allocated: archives lie about sizes, nest
//! extensions, or break off. What entries mean for files is decided by [`crate::layer`] and
//! [`crate::fileop`].

mod compression;
mod pax;
mod sparse;

use std::io::{self, Read};

pub use compression::{Compression, is_archive};
pub(crate) use compression::{decompress, detect};

/// The most that the name, link target and PAX records of one entry may take, in bytes.
const MAX_METADATA: u64 = 1 << 20;

const BLOCK: usize = 512;

/// Why an archive cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The stream ends in the middle.
    #[error("unexpected EOF: the archive ends in the middle of {0}")]
    Truncated(String),
    /// A header's checksum or a number in it is wrong.
    #[error("not a tar archive: {0}")]
    BadHeader(String),
    /// Something this reader does not take.
    #[error("{path:?}: {reason}")]
    Unsupported {
        /// The entry.
        path: String,
        /// What about it.
        reason: String,
    },
    /// The compressed stream is damaged.
    #[error("cannot decompress: {0}")]
    Decompress(io::Error),
    /// The stream cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Whoever takes the entries has failed.
    #[error("{0}")]
    Visitor(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl ArchiveError {
    /// Wraps an error of the one who takes the entries.
    pub fn visitor(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Visitor(Box::new(error))
    }

    fn reading(error: io::Error, what: &str) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Truncated(what.to_owned()),
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => Self::Decompress(error),
            _ => Self::Io(error),
        }
    }
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symlink.
    Symlink,
    /// Another name of an earlier entry.
    Hardlink,
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

/// What an archive says of one entry. Names are as written: any bytes, possibly absolute or with
/// `..`; whoever makes files of them must keep them below a root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Name.
    pub path: Vec<u8>,
    /// Kind.
    pub kind: EntryKind,
    /// Permission bits, with setuid, setgid and sticky.
    pub mode: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Modification time in seconds since the epoch, and nanoseconds.
    pub mtime: (i64, u32),
    /// Target of a symlink or hard link.
    pub link: Vec<u8>,
    /// Extended attributes (`SCHILY.xattr.` records), in order.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Size of a file's content in bytes.
    pub size: u64,
}

/// Reads an archive, compressed or not, and hands every entry with its content to `visit`. What
/// `visit` leaves unread is passed over. The input is read to its end, so that a digest taken of
/// it covers everything.
///
/// # Errors
/// For a damaged or truncated archive, and whatever `visit` returns.
pub fn read(
    input: impl Read + Send,
    visit: &mut dyn FnMut(&Entry, &mut dyn Read) -> Result<(), ArchiveError>,
) -> Result<(), ArchiveError> {
    let mut plain = decompress(input).map_err(|e| ArchiveError::reading(e, "its first block"))?;
    read_plain(&mut plain, visit)
}

/// Reads an uncompressed archive. See [`read`].
pub(crate) fn read_plain(
    input: &mut dyn Read,
    visit: &mut dyn FnMut(&Entry, &mut dyn Read) -> Result<(), ArchiveError>,
) -> Result<(), ArchiveError> {
    let mut global = pax::Records::default();
    let mut local = pax::Records::default();
    let mut long_name: Option<Vec<u8>> = None;
    let mut long_link: Option<Vec<u8>> = None;
    let mut zero_blocks = 0;
    loop {
        let mut block = [0; BLOCK];
        // Go's reader, and so BuildKit, takes the end of the stream for the end of the archive.
        if !read_block(input, &mut block)? {
            if long_name.is_some() || long_link.is_some() || local != pax::Records::default() {
                return Err(ArchiveError::Truncated("a header".to_owned()));
            }
            break;
        }
        if block == [0; BLOCK] {
            zero_blocks += 1;
            if zero_blocks == 2 {
                break;
            }
            continue;
        }
        zero_blocks = 0;
        let header = parse_header(&block)?;
        let kind = header.entry_type();
        let number = |field: Field| field.read(&block);
        let stored = unsigned(number(SIZE)?, "size")?;
        match kind {
            tar::EntryType::GNULongName => {
                long_name = Some(until_nul(&read_metadata(input, stored)?));
                continue;
            }
            tar::EntryType::GNULongLink => {
                long_link = Some(until_nul(&read_metadata(input, stored)?));
                continue;
            }
            tar::EntryType::XHeader => {
                local = pax::Records::parse(&read_metadata(input, stored)?)?;
                continue;
            }
            tar::EntryType::XGlobalHeader => {
                global.merge(pax::Records::parse(&read_metadata(input, stored)?)?);
                continue;
            }
            _ => {}
        }
        let records = global.with(std::mem::take(&mut local));
        let path = records
            .path
            .clone()
            .or(long_name.take())
            .unwrap_or_else(|| header.path_bytes().into_owned());
        let link = records
            .link
            .clone()
            .or(long_link.take())
            .or_else(|| header.link_name_bytes().map(|l| l.into_owned()))
            .unwrap_or_default();
        let shown = || String::from_utf8_lossy(&path).into_owned();
        if records.sparse {
            let reason = "sparse files in PAX form are not supported".to_owned();
            return Err(ArchiveError::Unsupported { path: shown(), reason });
        }
        let stored = records.size.unwrap_or(stored);
        let kind = match kind {
            tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse
                // Before POSIX a slash at the end was all that told a folder.
                if path.ends_with(b"/") => EntryKind::Folder,
            tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => {
                EntryKind::File
            }
            tar::EntryType::Directory => EntryKind::Folder,
            tar::EntryType::Symlink => EntryKind::Symlink,
            tar::EntryType::Link => EntryKind::Hardlink,
            tar::EntryType::Fifo => EntryKind::Fifo,
            tar::EntryType::Char => EntryKind::CharDevice,
            tar::EntryType::Block => EntryKind::BlockDevice,
            other => {
                let reason = format!("unknown kind of entry {:?}", char::from(other.as_byte()));
                return Err(ArchiveError::Unsupported { path: shown(), reason });
            }
        };
        let map = if header.entry_type() == tar::EntryType::GNUSparse {
            Some(sparse::Map::read(&header, input)?)
        } else {
            None
        };
        // Only files have content; POSIX lets writers put a size into headers of links.
        let has_data = kind == EntryKind::File;
        let entry = Entry {
            kind,
            mode: (number(MODE)? & 0o7777) as u32,
            uid: id(records.uid.map_or_else(|| unsigned(number(UID)?, "uid"), Ok)?, "uid")?,
            gid: id(records.gid.map_or_else(|| unsigned(number(GID)?, "gid"), Ok)?, "gid")?,
            mtime: match records.mtime {
                Some(mtime) => mtime,
                None => (number(MTIME)?, 0),
            },
            link,
            xattrs: records.xattrs,
            device: match kind {
                EntryKind::CharDevice | EntryKind::BlockDevice => {
                    let part = |field| id(unsigned(number(field)?, "device")?, "device");
                    (part(DEVICE_MAJOR)?, part(DEVICE_MINOR)?)
                }
                _ => (0, 0),
            },
            size: match &map {
                _ if !has_data => 0,
                Some(map) => map.real_size(),
                None => stored,
            },
            path,
        };
        let stored = if has_data { stored } else { 0 };
        let mut data = Data { input, left: stored, name: &entry.path };
        match map {
            Some(map) => visit(&entry, &mut map.reader(&mut data)).map_err(unwrap_reading)?,
            None => visit(&entry, &mut data).map_err(unwrap_reading)?,
        }
        io::copy(&mut data, &mut io::sink())
            .map_err(|e| ArchiveError::reading(e, &shown_path(&entry)))?;
        let padding = (BLOCK as u64 - stored % BLOCK as u64) % BLOCK as u64;
        let skipped = io::copy(&mut input.take(padding), &mut io::sink())
            .map_err(|e| ArchiveError::reading(e, &shown_path(&entry)))?;
        // A stream may end right behind the content of its last entry.
        if skipped < padding {
            break;
        }
    }
    io::copy(input, &mut io::sink()).map_err(|e| ArchiveError::reading(e, "its end"))?;
    Ok(())
}

/// An end of the stream that a visitor met while reading content is the archive's fault.
fn unwrap_reading(error: ArchiveError) -> ArchiveError {
    match error {
        ArchiveError::Io(e) => ArchiveError::reading(e, "an entry"),
        other => other,
    }
}

fn shown_path(entry: &Entry) -> String {
    format!("{:?}", String::from_utf8_lossy(&entry.path))
}

fn bad_number(field: &str) -> ArchiveError {
    ArchiveError::BadHeader(format!("its {field} is not a number"))
}

fn unsigned(value: i64, field: &str) -> Result<u64, ArchiveError> {
    u64::try_from(value).map_err(|_| bad_number(field))
}

fn id(value: u64, field: &str) -> Result<u32, ArchiveError> {
    u32::try_from(value).map_err(|_| bad_number(field))
}

/// A number in a header: name, first byte, one behind the last.
struct Field(&'static str, usize, usize);

const MODE: Field = Field("mode", 100, 108);
const UID: Field = Field("uid", 108, 116);
const GID: Field = Field("gid", 116, 124);
const SIZE: Field = Field("size", 124, 136);
const MTIME: Field = Field("mtime", 136, 148);
const DEVICE_MAJOR: Field = Field("device", 329, 337);
const DEVICE_MINOR: Field = Field("device", 337, 345);

impl Field {
    /// Octal digits, none meaning 0 as in Go's reader, or GNU's big-endian binary form.
    fn read(&self, block: &[u8; BLOCK]) -> Result<i64, ArchiveError> {
        let Self(name, start, end) = *self;
        let bytes = &block[start..end];
        if bytes[0] & 0x80 != 0 {
            let negative = bytes[0] & 0x40 != 0;
            let first =
                if negative { i128::from(bytes[0] as i8) } else { i128::from(bytes[0] & 0x7f) };
            // Twelve bytes at the most, so this cannot overflow.
            let value = bytes[1..].iter().fold(first, |sum, byte| sum << 8 | i128::from(*byte));
            return i64::try_from(value).map_err(|_| bad_number(name));
        }
        let text = bytes.split(|b| *b == 0).next().unwrap_or_default().trim_ascii();
        if text.is_empty() {
            return Ok(0);
        }
        let text = std::str::from_utf8(text).map_err(|_| bad_number(name))?;
        i64::from_str_radix(text, 8).ok().filter(|n| *n >= 0).ok_or_else(|| bad_number(name))
    }
}

fn until_nul(bytes: &[u8]) -> Vec<u8> {
    bytes.split(|b| *b == 0).next().unwrap_or_default().to_vec()
}

/// Fills a block; `false` at the end of the stream.
fn read_block(input: &mut dyn Read, block: &mut [u8; BLOCK]) -> Result<bool, ArchiveError> {
    let mut filled = 0;
    while filled < BLOCK {
        match input.read(&mut block[filled..]) {
            Ok(0) if filled == 0 => return Ok(false),
            Ok(0) => return Err(ArchiveError::Truncated("a header".to_owned())),
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(ArchiveError::reading(e, "a header")),
        }
    }
    Ok(true)
}

fn parse_header(block: &[u8; BLOCK]) -> Result<tar::Header, ArchiveError> {
    let mut header = tar::Header::new_old();
    header.as_mut_bytes().copy_from_slice(block);
    let stated = header.cksum().map_err(|_| bad_number("checksum"))?;
    let sum = |signed: bool| -> u32 {
        let (before, field, after) = (&block[..148], [b' '; 8], &block[156..]);
        let value = |b: &u8| if signed { i64::from(*b as i8) } else { i64::from(*b) };
        before.iter().chain(&field).chain(after).map(value).sum::<i64>() as u32
    };
    if stated != sum(false) && stated != sum(true) {
        return Err(ArchiveError::BadHeader("a header's checksum is wrong".to_owned()));
    }
    Ok(header)
}

/// Reads the content of a header that extends the next one.
fn read_metadata(input: &mut dyn Read, size: u64) -> Result<Vec<u8>, ArchiveError> {
    if size > MAX_METADATA {
        return Err(ArchiveError::BadHeader(format!(
            "the name or attributes of an entry take {size} bytes, more than {MAX_METADATA}"
        )));
    }
    let padded = size.div_ceil(BLOCK as u64) * BLOCK as u64;
    let mut data = Vec::new();
    input.take(padded).read_to_end(&mut data).map_err(|e| ArchiveError::reading(e, "a name"))?;
    if (data.len() as u64) < size {
        return Err(ArchiveError::Truncated("a name".to_owned()));
    }
    data.truncate(size as usize);
    Ok(data)
}

/// The stored content of one entry. Ends with an error if the stream does.
struct Data<'a> {
    input: &'a mut dyn Read,
    left: u64,
    name: &'a [u8],
}

impl Read for Data<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if want == 0 {
            return Ok(0);
        }
        // A compressed stream that breaks off is told by an error, a plain one by its end.
        match self.input.read(&mut buffer[..want]) {
            Ok(n) if n > 0 => {
                self.left -= n as u64;
                Ok(n)
            }
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(error),
            _ => {
                let name = String::from_utf8_lossy(self.name);
                Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!("unexpected EOF: the archive ends in the middle of {name:?}"),
                ))
            }
        }
    }
}

#[cfg(test)]
mod tests;
