//! The files of an image archive: a folder or a tar, compressed or not, read by name.
//!
//! A tar is indexed once and then read at any place and from several threads; a compressed one, or
//! one from a pipe, is first written out plain below the store's `tmp/`. Nothing is ever extracted
//! under a name from the archive.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::{ImageError, content};
use crate::{
    archive,
    store::{Store, TmpDir},
};

/// Most entries an image archive may have.
const MAX_ENTRIES: usize = 200_000;
/// Longest extended header (name, link target) in bytes.
const MAX_EXTENDED: u64 = 64 << 10;
/// Most links from one name to the next.
const MAX_LINKS: usize = 16;
const BLOCK: u64 = 512;

/// Files by name.
pub(super) struct Bundle {
    /// What the user called it, for errors.
    label: String,
    kind: Kind,
}

/// A file's content and its size in bytes.
type Content<'a> = (Box<dyn Read + Send + 'a>, u64);

enum Kind {
    Dir(PathBuf),
    Tar { file: File, entries: HashMap<String, Place>, _spool: Option<TmpDir> },
}

enum Place {
    Data { offset: u64, size: u64 },
    Link(String),
}

impl Bundle {
    /// Opens a folder or an archive file.
    pub(super) fn open(store: &Store, path: &Path) -> Result<Self, ImageError> {
        let label = path.display().to_string();
        let metadata = fs::metadata(path).map_err(ImageError::io(path))?;
        if metadata.is_dir() {
            return Ok(Self { label, kind: Kind::Dir(path.to_owned()) });
        }
        let mut file = File::open(path).map_err(ImageError::io(path))?;
        if !metadata.is_file() {
            return Self::from_stream(store, label, &mut file);
        }
        let mut head = [0; 16];
        let length = file.read_at(&mut head, 0).map_err(ImageError::io(path))?;
        if archive::detect(&head[..length]).is_some() {
            return Self::from_stream(store, label, &mut file);
        }
        Self::from_tar(label, file, None)
    }

    /// Reads an archive from a pipe.
    pub(super) fn from_stream(
        store: &Store,
        label: String,
        input: &mut (dyn Read + Send),
    ) -> Result<Self, ImageError> {
        let bad = |error: io::Error| archive_error(&label, &error.to_string());
        let mut plain = archive::decompress(input).map_err(bad)?;
        let spool = store.tmp_dir()?;
        let path = spool.path().join("archive.tar");
        let mut file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(ImageError::io(&path))?;
        content::copy(&mut plain, &mut file).map_err(bad)?;
        drop(plain);
        Self::from_tar(label, file, Some(spool))
    }

    fn from_tar(label: String, file: File, spool: Option<TmpDir>) -> Result<Self, ImageError> {
        let entries =
            index_tar(&file).map_err(|error| archive_error(&label, &error.to_string()))?;
        Ok(Self { label, kind: Kind::Tar { file, entries, _spool: spool } })
    }

    /// An error that names the archive.
    pub(super) fn error(&self, reason: impl AsRef<str>) -> ImageError {
        archive_error(&self.label, reason.as_ref())
    }

    /// Opens a file; `None` if there is none of that name. Gives its size in bytes as well.
    pub(super) fn open_file(&self, name: &str) -> Result<Option<Content<'_>>, ImageError> {
        let Some(mut name) = clean(name) else {
            return Err(self.error(format!("it refers to {name:?}, which is outside of it")));
        };
        match &self.kind {
            Kind::Dir(root) => {
                let path = root.join(&name);
                // A FIFO must not make us wait for a writer.
                let opened = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&path);
                let file = match opened {
                    Ok(file) => file,
                    Err(e) if is_absent(&e) => return Ok(None),
                    Err(e) => return Err(ImageError::io(path)(e)),
                };
                let metadata = file.metadata().map_err(ImageError::io(&path))?;
                if !metadata.is_file() {
                    return Ok(None);
                }
                Ok(Some((Box::new(file), metadata.len())))
            }
            Kind::Tar { file, entries, .. } => {
                for _ in 0..MAX_LINKS {
                    match entries.get(&name) {
                        None => return Ok(None),
                        Some(&Place::Data { offset, size }) => {
                            return Ok(Some((Box::new(Part { file, offset, left: size }), size)));
                        }
                        Some(Place::Link(target)) => name = target.clone(),
                    }
                }
                Err(self.error(format!("the link {name} goes round in circles")))
            }
        }
    }

    /// Reads a small file; `None` if there is none of that name.
    pub(super) fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, ImageError> {
        let Some((input, size)) = self.open_file(name)? else { return Ok(None) };
        if size > limit {
            return Err(self.error(format!("{name} has {size} bytes, the limit is {limit}")));
        }
        let mut data = Vec::new();
        input
            .take(limit)
            .read_to_end(&mut data)
            .map_err(|error| self.error(format!("{name}: {error}")))?;
        Ok(Some(data))
    }
}

fn archive_error(label: &str, reason: &str) -> ImageError {
    ImageError::Archive { archive: label.to_owned(), reason: reason.to_owned() }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// A part of a file, read by position so that several readers do not disturb each other.
struct Part<'a> {
    file: &'a File,
    offset: u64,
    left: u64,
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let n = self.file.read_at(&mut buffer[..most], self.offset)?;
        self.offset += n as u64;
        self.left -= n as u64;
        Ok(n)
    }
}

/// A name in the archive without `.` and `..`; `None` if it leads out of the archive.
fn clean(name: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    if name.starts_with('/') {
        return None;
    }
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// Where each file's data is. Entries with names that lead out of the archive cannot be asked for
/// and are passed over; of two with one name the later counts, as for tar.
fn index_tar(file: &File) -> io::Result<HashMap<String, Place>> {
    let broken = |reason: &str| io::Error::new(io::ErrorKind::InvalidData, reason.to_owned());
    let end = file.metadata()?.len();
    let mut entries = HashMap::new();
    let mut position: u64 = 0;
    let mut extended = Extended::default();
    loop {
        let mut block = [0; BLOCK as usize];
        if position == end && position > 0 {
            return Ok(entries);
        }
        file.read_exact_at(&mut block, position).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => broken("unexpected EOF in the archive"),
            _ => e,
        })?;
        if block.iter().all(|&b| b == 0) {
            return if position == 0 { Err(broken("it is no tar archive")) } else { Ok(entries) };
        }
        let header = tar::Header::from_byte_slice(&block);
        let sum: u32 = block[..148].iter().chain(&block[156..]).map(|&b| u32::from(b)).sum();
        if header.cksum().ok() != Some(sum + 8 * u32::from(b' ')) {
            let what =
                if position == 0 { "it is no tar archive" } else { "a tar header is damaged" };
            return Err(broken(what));
        }
        let kind = header.entry_type();
        let size = match extended.size {
            Some(size) if !is_extension(kind) => size,
            _ => header.entry_size()?,
        };
        let data = position + BLOCK;
        let next = size
            .checked_next_multiple_of(BLOCK)
            .and_then(|size| data.checked_add(size))
            .ok_or_else(|| broken("a tar header has an impossible size"))?;
        if next > end {
            return Err(broken("unexpected EOF in the archive"));
        }
        position = next;
        if is_extension(kind) {
            if size > MAX_EXTENDED {
                return Err(broken("an extended tar header is too long"));
            }
            let mut bytes = vec![0; size as usize];
            file.read_exact_at(&mut bytes, data)?;
            extended.take(kind, &bytes).map_err(broken)?;
            continue;
        }
        let extended = std::mem::take(&mut extended);
        let name = extended.path.unwrap_or_else(|| text(&header.path_bytes()));
        let Some(name) = clean(&name) else { continue };
        let link = || extended.link.clone().or_else(|| header.link_name_bytes().map(|l| text(&l)));
        let place = match kind {
            tar::EntryType::Regular | tar::EntryType::Continuous => {
                if extended.sparse {
                    return Err(broken("it has sparse files"));
                }
                Some(Place::Data { offset: data, size })
            }
            tar::EntryType::GNUSparse => return Err(broken("it has sparse files")),
            tar::EntryType::Link => link().and_then(|link| clean(&link)).map(Place::Link),
            tar::EntryType::Symlink => {
                let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
                link()
                    .filter(|link| !link.starts_with('/'))
                    .and_then(|link| clean(format!("{folder}/{link}").trim_start_matches('/')))
                    .map(Place::Link)
            }
            _ => None,
        };
        if let Some(place) = place {
            entries.insert(name, place);
            if entries.len() > MAX_ENTRIES {
                return Err(broken("it has too many entries for an image archive"));
            }
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn is_extension(kind: tar::EntryType) -> bool {
    use tar::EntryType::{GNULongLink, GNULongName, XGlobalHeader, XHeader};
    matches!(kind, GNULongLink | GNULongName | XGlobalHeader | XHeader)
}

/// What extended headers say of the entry behind them.
#[derive(Default)]
struct Extended {
    path: Option<String>,
    link: Option<String>,
    size: Option<u64>,
    sparse: bool,
}

impl Extended {
    fn take(&mut self, kind: tar::EntryType, bytes: &[u8]) -> Result<(), &'static str> {
        let until_zero = || text(bytes.split(|&b| b == 0).next().unwrap_or_default());
        match kind {
            tar::EntryType::GNULongName => self.path = Some(until_zero()),
            tar::EntryType::GNULongLink => self.link = Some(until_zero()),
            tar::EntryType::XHeader => {
                for record in tar::PaxExtensions::new(bytes) {
                    let record = record.map_err(|_| "a PAX header is damaged")?;
                    let value = record.value_bytes();
                    match record.key_bytes() {
                        b"path" => self.path = Some(text(value)),
                        b"linkpath" => self.link = Some(text(value)),
                        b"size" => {
                            let size = text(value).parse();
                            self.size = Some(size.map_err(|_| "a PAX header is damaged")?);
                        }
                        key if key.starts_with(b"GNU.sparse.") => self.sparse = true,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn indexed(bytes: &[u8]) -> io::Result<HashMap<String, Place>> {
        let mut file = tempfile::tempfile().expect("temporary file");
        file.write_all(bytes).expect("write");
        index_tar(&file)
    }

    fn sample() -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(3);
        header.set_mode(0o644);
        header.set_cksum();
        builder.append_data(&mut header, "a/layer.tar", &b"abc"[..]).expect("append");
        let mut link = tar::Header::new_gnu();
        link.set_entry_type(tar::EntryType::Symlink);
        link.set_size(0);
        builder.append_link(&mut link, "b/layer.tar", "../a/layer.tar").expect("append");
        builder.into_inner().expect("finish")
    }

    #[test]
    fn names_stay_inside() {
        assert_eq!(clean("./a//b/../c").as_deref(), Some("a/c"));
        assert_eq!(clean("../a"), None);
        assert_eq!(clean("/etc/passwd"), None);
    }

    #[test]
    fn links_are_followed_within_the_archive() {
        let root = tempfile::tempdir().expect("folder");
        let store = Store::open(&root.path().join("state")).expect("store");
        let path = root.path().join("a.tar");
        fs::write(&path, sample()).expect("write");
        let bundle = Bundle::open(&store, &path).expect("bundle");
        assert_eq!(bundle.read("b/layer.tar", 10).expect("read").as_deref(), Some(&b"abc"[..]));
        assert!(bundle.read("b/layer.tar", 2).is_err());
        assert!(bundle.read("missing", 10).expect("read").is_none());
        assert!(bundle.read("../../etc/passwd", 10).is_err());
    }

    #[test]
    fn cut_archives_are_refused_or_lack_entries() {
        let whole = sample();
        for length in 1..1024 {
            assert!(indexed(&whole[..length]).is_err(), "cut at {length}");
        }
    }

    proptest! {
        #[test]
        fn changed_bytes_are_answered(at in 0usize..1536, value: u8) {
            let mut bytes = sample();
            bytes[at] = value;
            let _ = indexed(&bytes);
        }
    }
}
