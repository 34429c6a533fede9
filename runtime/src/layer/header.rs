//! Writes the headers of tar entries: plain ustar, with PAX records only for what does not fit.

/// Length of a tar block in bytes; headers and content are padded to it.
pub(crate) const BLOCK: u64 = 512;

/// Names and values of extended attributes.
pub(crate) type RawXattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// What a tar says of one entry. A folder's name ends in a slash.
pub(crate) struct Head {
    /// Name.
    pub(crate) name: Vec<u8>,
    /// Type flag.
    pub(crate) kind: u8,
    /// Permission bits.
    pub(crate) mode: u32,
    /// Owner.
    pub(crate) uid: u32,
    /// Group.
    pub(crate) gid: u32,
    /// Length of the content that follows.
    pub(crate) size: u64,
    /// Seconds since the epoch.
    pub(crate) mtime: i64,
    /// Target of a link.
    pub(crate) link: Vec<u8>,
    /// Major and minor number.
    pub(crate) device: Option<(u32, u32)>,
    /// Extended attributes by name.
    pub(crate) xattrs: RawXattrs,
}

/// The largest number that eight bytes hold in octal with a NUL behind.
const MAX_ID: u32 = 0o7_777_777;
/// The same for twelve bytes.
const MAX_SIZE: u64 = 0o77_777_777_777;

impl Head {
    /// The header as blocks, with a PAX header before it if needed.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut records: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        let mut add = |key: &[u8], value: &[u8]| records.push((key.to_vec(), value.to_vec()));
        let mut header = tar::Header::new_ustar();
        let plain_name = split_name(&self.name);
        match plain_name {
            Some((prefix, rest)) => set_name(&mut header, prefix, rest),
            None => {
                add(b"path", &self.name);
                set_name(&mut header, b"", &shortened(&self.name));
            }
        }
        let fields = header.as_ustar_mut().expect("made as ustar above");
        if self.link.len() <= fields.linkname.len() && self.link.is_ascii() {
            fields.linkname[..self.link.len()].copy_from_slice(&self.link);
        } else {
            add(b"linkpath", &self.link);
            let short = shortened(&self.link);
            fields.linkname[..short.len()].copy_from_slice(&short);
        }
        header.set_mode(self.mode);
        for (key, id) in [("uid", self.uid), ("gid", self.gid)] {
            let shown = if id > MAX_ID {
                add(key.as_bytes(), id.to_string().as_bytes());
                0
            } else {
                u64::from(id)
            };
            if key == "uid" { header.set_uid(shown) } else { header.set_gid(shown) }
        }
        if self.size > MAX_SIZE {
            add(b"size", self.size.to_string().as_bytes());
            header.set_size(0);
        } else {
            header.set_size(self.size);
        }
        match u64::try_from(self.mtime) {
            Ok(mtime) if mtime <= MAX_SIZE => header.set_mtime(mtime),
            _ => {
                add(b"mtime", self.mtime.to_string().as_bytes());
                header.set_mtime(0);
            }
        }
        header.set_entry_type(tar::EntryType::new(self.kind));
        if let Some((major, minor)) = self.device {
            // Both fit: Linux has 12 and 20 bits for them, the fields 21.
            let _ = header.set_device_major(major);
            let _ = header.set_device_minor(minor);
        }
        for (name, value) in &self.xattrs {
            add(&[b"SCHILY.xattr.".as_slice(), name].concat(), value);
        }
        header.set_cksum();
        let mut out = Vec::new();
        if !records.is_empty() {
            records.sort();
            let body: Vec<u8> =
                records.iter().flat_map(|(key, value)| pax_record(key, value)).collect();
            let mut extended = tar::Header::new_ustar();
            extended.set_entry_type(tar::EntryType::XHeader);
            set_name(&mut extended, b"", b"PaxHeaders.0/entry");
            extended.set_mode(0o644);
            extended.set_size(body.len() as u64);
            extended.set_mtime(0);
            extended.set_uid(0);
            extended.set_gid(0);
            extended.set_cksum();
            out.extend_from_slice(extended.as_bytes());
            out.extend_from_slice(&body);
            out.resize(out.len().next_multiple_of(BLOCK as usize), 0);
        }
        out.extend_from_slice(header.as_bytes());
        out
    }
}

fn set_name(header: &mut tar::Header, prefix: &[u8], name: &[u8]) {
    let fields = header.as_ustar_mut().expect("made as ustar");
    fields.prefix[..prefix.len()].copy_from_slice(prefix);
    fields.name[..name.len()].copy_from_slice(name);
}

/// Splits a name into the prefix and name fields of a ustar header, if it fits and is ASCII.
fn split_name(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if !name.is_ascii() || name.contains(&0) {
        return None;
    }
    if name.len() <= 100 {
        return Some((b"", name));
    }
    // The slash between the two is not stored. The last byte may be a folder's own slash.
    (0..name.len() - 1)
        .filter(|&at| name[at] == b'/' && at > 0 && at <= 155 && name.len() - at - 1 <= 100)
        .map(|at| (&name[..at], &name[at + 1..]))
        .next()
}

/// A stand-in for readers that know no PAX.
fn shortened(name: &[u8]) -> Vec<u8> {
    name.iter().map(|b| if b.is_ascii() { *b } else { b'_' }).take(100).collect()
}

/// `LENGTH KEY=VALUE\n`, where LENGTH counts itself.
fn pax_record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length.to_string().len() + rest != length {
        length = length.to_string().len() + rest;
    }
    [format!("{length} ").as_bytes(), key, b"=", value, b"\n"].concat()
}
