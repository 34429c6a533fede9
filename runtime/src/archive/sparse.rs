//! Sparse files in GNU tar's old form: a map of the stretches that have data.

use std::io::{self, Read};

use super::{ArchiveError, BLOCK, Data, read_block};

/// The largest file that a sparse entry may claim to be. Nothing bounds the claim otherwise.
const MAX_REAL_SIZE: u64 = 1 << 40;
/// The most stretches a map may have.
const MAX_STRETCHES: usize = 1 << 16;

/// Where the stored data belongs.
pub(super) struct Map {
    /// Offset and length of each stretch, ascending.
    stretches: Vec<(u64, u64)>,
    real_size: u64,
}

impl Map {
    /// Reads the map from the header and the blocks that extend it.
    pub(super) fn read(header: &tar::Header, input: &mut dyn Read) -> Result<Self, ArchiveError> {
        let bad = || ArchiveError::BadHeader("a sparse map cannot be read".to_owned());
        let gnu = header.as_gnu().ok_or_else(bad)?;
        let real_size = gnu.real_size().map_err(|_| bad())?;
        let mut stretches = Vec::new();
        let mut add = |sparse: &tar::GnuSparseHeader| -> Result<(), ArchiveError> {
            if !sparse.is_empty() {
                stretches.push((
                    sparse.offset().map_err(|_| bad())?,
                    sparse.length().map_err(|_| bad())?,
                ));
            }
            if stretches.len() > MAX_STRETCHES { Err(bad()) } else { Ok(()) }
        };
        gnu.sparse.iter().try_for_each(&mut add)?;
        let mut more = gnu.is_extended();
        while more {
            let mut block = [0; BLOCK];
            if !read_block(input, &mut block)? {
                return Err(ArchiveError::Truncated("a sparse map".to_owned()));
            }
            let mut extended = tar::GnuExtSparseHeader::new();
            extended.as_mut_bytes().copy_from_slice(&block);
            extended.sparse().iter().try_for_each(&mut add)?;
            more = extended.is_extended();
        }
        let mut end = 0;
        for &(offset, length) in &stretches {
            let next = offset.checked_add(length).ok_or_else(bad)?;
            if offset < end || next > real_size {
                return Err(bad());
            }
            end = next;
        }
        if real_size > MAX_REAL_SIZE {
            return Err(bad());
        }
        Ok(Self { stretches, real_size })
    }

    /// Size of the file with its holes.
    pub(super) fn real_size(&self) -> u64 {
        self.real_size
    }

    /// The file with its holes filled with zeros.
    pub(super) fn reader<'a, 'b>(self, data: &'a mut Data<'b>) -> Expanded<'a, 'b> {
        Expanded { map: self, data, at: 0, next: 0 }
    }
}

pub(super) struct Expanded<'a, 'b> {
    map: Map,
    data: &'a mut Data<'b>,
    at: u64,
    next: usize,
}

impl Read for Expanded<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = |bytes: u64| buffer.len().min(usize::try_from(bytes).unwrap_or(usize::MAX));
        while self.map.stretches.get(self.next).is_some_and(|&(o, l)| self.at >= o + l) {
            self.next += 1;
        }
        let (offset, length) =
            self.map.stretches.get(self.next).copied().unwrap_or((self.map.real_size, 0));
        let n = if self.at < offset {
            let n = room(offset - self.at);
            buffer[..n].fill(0);
            n
        } else {
            let n = room(offset + length - self.at);
            self.data.read(&mut buffer[..n])?
        };
        self.at += n as u64;
        Ok(n)
    }
}
