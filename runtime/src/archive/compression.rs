//! Which compression a stream has, told by its first bytes, and taking it off.

use std::{
    fs::File,
    io::{self, BufReader, Cursor, Read, Seek, SeekFrom},
};

use super::{BLOCK, parse_header};

/// A compression of archives and layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    /// RFC 1952.
    Gzip,
    /// bzip2.
    Bzip2,
    /// The .xz format.
    Xz,
    /// RFC 8878.
    Zstd,
}

/// Bytes of a stream's beginning that [`detect`] wants to see.
const HEAD: usize = 10;

/// The compression that a stream with this beginning has; `None` if it is none that is known.
pub fn detect(head: &[u8]) -> Option<Compression> {
    // Skippable zstd frames (RFC 8878, 3.1.2) may come first.
    let skippable = head.len() >= 4 && head[0] & 0xf0 == 0x50 && head[1..4] == [0x2a, 0x4d, 0x18];
    match head {
        [0x1f, 0x8b, 0x08, ..] => Some(Compression::Gzip),
        [b'B', b'Z', b'h', ..] => Some(Compression::Bzip2),
        [0xfd, b'7', b'z', b'X', b'Z', 0x00, ..] => Some(Compression::Xz),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Compression::Zstd),
        _ if skippable => Some(Compression::Zstd),
        _ => None,
    }
}

/// The plain content of a stream, whatever its compression.
///
/// # Errors
/// If the beginning cannot be read. Damage further on shows when the result is read; a compressed
/// stream that breaks off gives [`io::ErrorKind::UnexpectedEof`].
pub fn decompress<'a>(mut input: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut head = Vec::with_capacity(HEAD);
    (&mut input).take(HEAD as u64).read_to_end(&mut head)?;
    let kind = detect(&head);
    let whole = BufReader::with_capacity(128 << 10, Cursor::new(head).chain(input));
    Ok(match kind {
        None => Box::new(whole),
        Some(Compression::Gzip) => Box::new(flate2::bufread::MultiGzDecoder::new(whole)),
        Some(Compression::Bzip2) => Box::new(bzip2::bufread::MultiBzDecoder::new(whole)),
        Some(Compression::Xz) => {
            // The limit keeps a forged dictionary size from taking the machine's memory.
            let stream = liblzma::stream::Stream::new_stream_decoder(
                256 << 20,
                liblzma::stream::CONCATENATED,
            )?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(whole, stream))
        }
        Some(Compression::Zstd) => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(whole)?;
            decoder.window_log_max(27)?;
            Box::new(decoder)
        }
    })
}

/// Whether a file is an archive by its content, as ADD sees it: its plain content begins with a
/// valid tar header. A file of zeros is none. The file's position is set back to its beginning.
pub fn is_archive(file: &mut File) -> io::Result<bool> {
    file.seek(SeekFrom::Start(0))?;
    let found = begins_with_header(&*file);
    file.seek(SeekFrom::Start(0))?;
    Ok(found)
}

fn begins_with_header(file: &File) -> bool {
    let mut block = [0; BLOCK];
    // A stream that cannot be decompressed is a file like any other.
    let Ok(mut plain) = decompress(file) else { return false };
    plain.read_exact(&mut block).is_ok() && block != [0; BLOCK] && parse_header(&block).is_ok()
}
