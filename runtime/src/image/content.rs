//! The store as a source of manifests and configs.

use std::io::{Read, Write};

use rbc_ir::Digest;

use super::{Descriptor, Documents, ImageError};
use crate::store::{Store, StoreError};

impl Documents for Store {
    fn document(&self, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>, ImageError> {
        let digest = descriptor.digest;
        if descriptor.size > limit {
            return Err(ImageError::TooLarge { digest, size: descriptor.size, limit });
        }
        match self.blobs().size(&digest) {
            None => return Err(ImageError::MissingBlob { digest }),
            Some(size) if size != descriptor.size => {
                return Err(ImageError::WrongSize { digest, want: descriptor.size, got: size });
            }
            Some(_) => {}
        }
        Ok(self.blobs().read(&digest, limit)?)
    }
}

/// A descriptor of a blob in the store of which only the digest is known.
pub fn describe(store: &Store, digest: &Digest) -> Result<Descriptor, ImageError> {
    let size = store.blobs().size(digest).ok_or(ImageError::MissingBlob { digest: *digest })?;
    Ok(Descriptor {
        media_type: String::new(),
        digest: *digest,
        size,
        annotations: None,
        platform: None,
    })
}

/// Stores a manifest, index or config and describes it.
pub fn store_manifest(
    store: &Store,
    media_type: &str,
    bytes: &[u8],
) -> Result<Descriptor, ImageError> {
    store.blobs().write(bytes)?;
    Ok(Descriptor::of(media_type, bytes))
}

/// Copies a blob into the store unless it is there; checks its digest and size on the way.
pub(super) fn copy_blob(
    store: &Store,
    descriptor: &Descriptor,
    input: &mut dyn Read,
) -> Result<(), ImageError> {
    let digest = descriptor.digest;
    let mut writer = store.blobs().writer()?;
    let path = writer.path().to_owned();
    // One byte more than described is enough to see that it is too long.
    let mut limited = input.take(descriptor.size.saturating_add(1));
    copy(&mut limited, &mut writer).map_err(ImageError::io(path))?;
    if writer.size() != descriptor.size {
        return Err(ImageError::WrongSize { digest, want: descriptor.size, got: writer.size() });
    }
    publish(store, writer, Some(digest))?;
    Ok(())
}

/// Copies with a buffer that suits hashing.
pub(crate) fn copy(input: &mut dyn Read, out: &mut dyn Write) -> std::io::Result<u64> {
    let mut buffer = vec![0; 256 << 10];
    let mut total = 0;
    loop {
        match input.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(n) => {
                out.write_all(&buffer[..n])?;
                total += n as u64;
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// Publishes a written blob; a wrong digest is told in an image's words.
pub(crate) fn publish(
    store: &Store,
    writer: crate::store::BlobWriter,
    expected: Option<Digest>,
) -> Result<(Digest, u64), ImageError> {
    writer.finish(store, expected).map_err(|error| match error {
        StoreError::WrongDigest { expected, actual } => {
            ImageError::WrongDigest { want: expected, got: actual }
        }
        other => ImageError::Store(other),
    })
}
