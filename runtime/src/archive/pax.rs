//! PAX extended header records (POSIX.1-2001 `pax`, "pax Extended Header").

use super::ArchiveError;

/// The records that matter for files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Records {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u64>,
    pub gid: Option<u64>,
    pub mtime: Option<(i64, u32)>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Whether the entry is a sparse file in one of GNU's PAX forms.
    pub sparse: bool,
}

impl Records {
    /// Parses `LENGTH KEY=VALUE\n` records.
    pub(super) fn parse(mut data: &[u8]) -> Result<Self, ArchiveError> {
        let bad = || ArchiveError::BadHeader("a PAX record cannot be read".to_owned());
        let mut records = Self::default();
        while !data.is_empty() {
            let space = data.iter().take(20).position(|b| *b == b' ').ok_or_else(bad)?;
            let length: usize = std::str::from_utf8(&data[..space])
                .ok()
                .and_then(|n| n.parse().ok())
                .ok_or_else(bad)?;
            if length <= space + 1 || length > data.len() || data[length - 1] != b'\n' {
                return Err(bad());
            }
            let record = &data[space + 1..length - 1];
            data = &data[length..];
            let equals = record.iter().position(|b| *b == b'=').ok_or_else(bad)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            let number = || {
                std::str::from_utf8(value).ok().and_then(|n| n.parse::<u64>().ok()).ok_or_else(bad)
            };
            match key {
                // An empty value takes a record back.
                b"path" => records.path = (!value.is_empty()).then(|| value.to_vec()),
                b"linkpath" => records.link = (!value.is_empty()).then(|| value.to_vec()),
                b"size" => records.size = Some(number()?),
                b"uid" => records.uid = Some(number()?),
                b"gid" => records.gid = Some(number()?),
                b"mtime" => records.mtime = Some(time(value).ok_or_else(bad)?),
                _ if key.starts_with(b"GNU.sparse.") => records.sparse = true,
                _ => {
                    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                        records.xattrs.push((name.to_vec(), value.to_vec()));
                    }
                }
            }
        }
        Ok(records)
    }

    /// Takes over what `newer` states.
    pub(super) fn merge(&mut self, newer: Self) {
        *self = self.with(newer);
    }

    /// These records with those of `newer` winning.
    pub(super) fn with(&self, newer: Self) -> Self {
        let mut xattrs = self.xattrs.clone();
        xattrs.retain(|(name, _)| newer.xattrs.iter().all(|(other, _)| other != name));
        xattrs.extend(newer.xattrs);
        Self {
            path: newer.path.or_else(|| self.path.clone()),
            link: newer.link.or_else(|| self.link.clone()),
            size: newer.size.or(self.size),
            uid: newer.uid.or(self.uid),
            gid: newer.gid.or(self.gid),
            mtime: newer.mtime.or(self.mtime),
            xattrs,
            sparse: newer.sparse || self.sparse,
        }
    }
}

/// `-12.5` as seconds below and nanoseconds above.
fn time(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let negative = whole.starts_with('-');
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanos: u32 = digits.parse().ok()?;
    match (negative, nanos) {
        (true, 1..) => Some((seconds.checked_sub(1)?, 1_000_000_000 - nanos)),
        _ => Some((seconds, nanos)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_the_epoch_round_down() {
        assert_eq!(time(b"12.5"), Some((12, 500_000_000)));
        assert_eq!(time(b"-12.25"), Some((-13, 750_000_000)));
        assert_eq!(time(b"-1"), Some((-1, 0)));
        assert_eq!(time(b"x"), None);
        assert_eq!(time(b"1.2x"), None);
    }

    #[test]
    fn damaged_records_are_refused() {
        for data in [&b"8 path=a\n"[..], b"x", b"99999999999 path=a\n", b"3 \n", b"7 path\n"] {
            assert!(Records::parse(data).is_err(), "{:?}", String::from_utf8_lossy(data));
        }
        let records = Records::parse(b"9 path=a\n12 size=345\n").unwrap();
        assert_eq!((records.path, records.size), (Some(b"a".to_vec()), Some(345)));
    }
}
