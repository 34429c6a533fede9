//! Fetching one blob: resumed after cuts, checked before it is published, unpacked on the way.
//!
//! The bytes go to a file in the staging area. A second thread follows that file as it grows and
//! unpacks it, so that a layer is ready soon after its last byte has come. Neither blob nor layer is
//! published before the digests of both are right.

use std::{
    fs::File,
    io::{self, Read, Write},
    sync::{Condvar, Mutex, PoisonError},
    thread,
};

use rbc_ir::Digest;
use ureq::{
    Body,
    http::{Response, StatusCode, header},
};

use super::{
    Client, Progress, RegistryError,
    hosts::Endpoint,
    pull::{at_any, get},
    retry::Backoff,
    transport::{header_text, reason},
};
use crate::{
    image::{self, Descriptor, ImageError},
    layer,
    store::{BlobWriter, LayerId, Store, StoreError},
};

/// Bytes that are read at once.
const BUFFER: usize = 128 << 10;
/// An attempt that brought so many bytes was no failure, however it ended.
const PROGRESS: u64 = 64 << 10;

/// Where the blobs of a repository come from.
pub(super) struct BlobSource<'a> {
    pub(super) client: &'a Client,
    /// Mirrors first.
    pub(super) endpoints: &'a [Endpoint],
    /// What errors are about.
    pub(super) what: &'a str,
}

impl BlobSource<'_> {
    /// Brings a blob into the store unless it is there; with its diff ID given, as a layer too.
    pub(super) fn fetch(
        &self,
        store: &Store,
        blob: &Descriptor,
        unpack: Option<&Digest>,
        progress: Progress<'_>,
    ) -> Result<(), RegistryError> {
        let lock = self.client.blob_lock(&blob.digest);
        let _alone = lock.lock().unwrap_or_else(PoisonError::into_inner);
        if store.blobs().size(&blob.digest) == Some(blob.size) {
            return Ok(());
        }
        let attempt = || match unpack {
            Some(diff_id) if !store.has_layer(&LayerId::of_diff_id(diff_id)) => {
                self.fetch_and_unpack(store, blob, diff_id, progress)
            }
            _ => {
                let mut writer = store.blobs().writer().map_err(|e| self.local(e))?;
                self.download(blob, &mut writer, &|_| {}, progress)?;
                image::publish(store, writer, Some(blob.digest)).map_err(|e| self.image(e))?;
                Ok(())
            }
        };
        let done = match attempt() {
            // What was damaged on its way may arrive whole at the second time.
            Err(error) if is_damage(&error) => attempt(),
            done => done,
        };
        done?;
        // A push to another repository there can then do without sending it.
        if let Some(Endpoint { domain, repository, .. }) = self.endpoints.last() {
            store.note_blob_place(&blob.digest, domain, repository).map_err(|e| self.local(e))?;
        }
        Ok(())
    }

    fn fetch_and_unpack(
        &self,
        store: &Store,
        blob: &Descriptor,
        diff_id: &Digest,
        progress: Progress<'_>,
    ) -> Result<(), RegistryError> {
        let staging = store.tmp_dir().map_err(|e| self.local(e))?;
        let dir = staging.path().join("layer");
        std::fs::create_dir(&dir).map_err(|e| self.image(ImageError::io(&dir)(e)))?;
        let mut writer = store.blobs().writer().map_err(|e| self.local(e))?;
        let path = writer.path().to_owned();
        let file = File::open(&path).map_err(|e| self.image(ImageError::io(&path)(e)))?;
        let growth = Growth::default();
        let most = store.largest_layer();
        let (fetched, applied) = thread::scope(|scope| {
            let follower = Follower { file, position: 0, growth: &growth };
            let unpacker = scope.spawn(|| layer::apply_tar_within(follower, &dir, most));
            let grower = Grower(&growth);
            let fetched = self.download(blob, &mut writer, &|size| grower.0.reach(size), progress);
            if fetched.is_ok() {
                growth.end(End::Complete);
            }
            drop(grower);
            (fetched, unpacker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        fetched?;
        // What is wrong with a damaged blob is its digest, whatever the unpacker made of it.
        image::publish(store, writer, Some(blob.digest)).map_err(|e| self.image(e))?;
        let applied = applied.map_err(|error| {
            self.image(ImageError::Layer { blob: blob.digest, reason: error.to_string() })
        })?;
        if applied.diff_id != *diff_id {
            let (want, got) = (*diff_id, applied.diff_id);
            return Err(self.image(ImageError::WrongDiffId { blob: blob.digest, want, got }));
        }
        store.publish_layer(&dir, &LayerId::of_diff_id(diff_id)).map_err(|e| self.local(e))?;
        Ok(())
    }

    /// Downloads a blob, going on where it broke off, if need be from another place. `grown` is
    /// told the size of what has been written.
    fn download(
        &self,
        blob: &Descriptor,
        writer: &mut BlobWriter,
        grown: &dyn Fn(u64),
        progress: Progress<'_>,
    ) -> Result<(), RegistryError> {
        at_any(self.endpoints, |endpoint| {
            let mut backoff = Backoff::new(&self.client.stop, endpoint.patience);
            loop {
                let before = writer.size();
                let Err(error) = self.download_once(endpoint, blob, writer, grown, progress) else {
                    return Ok(());
                };
                // The connection broke behind the last byte; the digest tells whether it is right.
                if writer.size() == blob.size && !matches!(error, RegistryError::Stopped) {
                    return Ok(());
                }
                if writer.size() >= before + PROGRESS {
                    backoff.progressed();
                }
                backoff.wait_after(error)?;
            }
        })
    }

    fn download_once(
        &self,
        endpoint: &Endpoint,
        blob: &Descriptor,
        writer: &mut BlobWriter,
        grown: &dyn Fn(u64),
        progress: Progress<'_>,
    ) -> Result<(), RegistryError> {
        let from = writer.size();
        let range = [(header::RANGE, format!("bytes={from}-"))];
        let headers = if from > 0 { range.as_slice() } else { &[] };
        let path = format!("blobs/{}", blob.digest);
        let what = format!("{}: layer {}", self.what, blob.digest.short());
        let response = get(self.client, endpoint, &path, headers, &what)?;
        let broken = |reason: String| RegistryError::Broken {
            what: what.clone(),
            host: endpoint.host.clone(),
            reason,
        };
        // A server may send all of it again; what is there already is then passed over. That it is
        // the same the digest will tell.
        let mut known = match response.status() {
            StatusCode::PARTIAL_CONTENT if begins_at(&response, from) => 0,
            StatusCode::PARTIAL_CONTENT => {
                return Err(broken("another part came than the one asked for".to_owned()));
            }
            _ => from,
        };
        let mut body = response.into_body().into_with_config().limit(u64::MAX).reader();
        let mut buffer = vec![0; BUFFER];
        loop {
            self.client.stop.check()?;
            let n = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(broken(reason(error.into()))),
            };
            let old = known.min(n as u64);
            known -= old;
            // `old` is at most `n`, which a buffer's length bounds.
            let new = &buffer[old as usize..n];
            let size = writer.size() + new.len() as u64;
            if size > blob.size {
                let (digest, want) = (blob.digest, blob.size);
                return Err(self.image(ImageError::WrongSize { digest, want, got: size }));
            }
            let path = writer.path().to_owned();
            writer.write_all(new).map_err(|e| self.image(ImageError::io(path)(e)))?;
            grown(size);
            progress(blob, size);
        }
        if writer.size() < blob.size {
            return Err(broken(format!("{} of {} bytes came", writer.size(), blob.size)));
        }
        Ok(())
    }

    fn image(&self, source: ImageError) -> RegistryError {
        RegistryError::Image { what: self.what.to_owned(), source: Box::new(source) }
    }

    fn local(&self, source: StoreError) -> RegistryError {
        self.image(source.into())
    }
}

/// Whether the bytes that came were not those that were sent.
pub(super) fn is_damage(error: &RegistryError) -> bool {
    matches!(error, RegistryError::Image { source, .. }
        if matches!(**source, ImageError::WrongDigest { .. }))
}

/// Whether a partial answer begins at a byte.
fn begins_at(response: &Response<Body>, from: u64) -> bool {
    header_text(response.headers(), header::CONTENT_RANGE)
        .is_some_and(|range| range.starts_with(&format!("bytes {from}-")))
}

/// How far a file has grown that one thread writes and another one reads.
#[derive(Default)]
struct Growth {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    size: u64,
    end: Option<End>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Complete,
    Failed,
}

impl Growth {
    fn reach(&self, size: u64) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).size = size;
        self.changed.notify_all();
    }

    /// The first end counts.
    fn end(&self, end: End) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).end.get_or_insert(end);
        self.changed.notify_all();
    }

    /// Waits until there is more than `size`; `None` at the end.
    fn beyond(&self, size: u64) -> io::Result<Option<u64>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match state.end {
                _ if state.size > size => return Ok(Some(state.size - size)),
                Some(End::Complete) => return Ok(None),
                Some(End::Failed) => return Err(io::Error::other("the download failed")),
                None => {
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }
}

/// Ends the growth whatever happens to the writer, so that nobody waits for ever.
struct Grower<'a>(&'a Growth);

impl Drop for Grower<'_> {
    fn drop(&mut self) {
        self.0.end(End::Failed);
    }
}

/// Reads a file that is being written.
struct Follower<'a> {
    file: File,
    position: u64,
    growth: &'a Growth,
}

impl Read for Follower<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(more) = self.growth.beyond(self.position)? else { return Ok(0) };
        let most = usize::try_from(more).unwrap_or(usize::MAX).min(buffer.len());
        let n = self.file.read(&mut buffer[..most])?;
        self.position += n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_follows_a_growing_file() {
        let mut file = tempfile::NamedTempFile::new().expect("file");
        let reader = File::open(file.path()).expect("open");
        let growth = Growth::default();
        let read = thread::scope(|scope| {
            let follower = scope.spawn(|| {
                let mut all = Vec::new();
                let mut follower = Follower { file: reader, position: 0, growth: &growth };
                follower.read_to_end(&mut all).map(|_| all)
            });
            for part in 1..=100_u64 {
                file.write_all(&part.to_le_bytes()).expect("write");
                growth.reach(part * 8);
            }
            growth.end(End::Complete);
            follower.join().expect("no panic")
        });
        let want: Vec<u8> = (1..=100_u64).flat_map(u64::to_le_bytes).collect();
        assert_eq!(read.expect("read"), want);
    }

    #[test]
    fn a_failed_writer_ends_its_reader() {
        let file = tempfile::tempfile().expect("file");
        let growth = Growth::default();
        drop(Grower(&growth));
        let mut follower = Follower { file, position: 0, growth: &growth };
        assert!(follower.read(&mut [0; 8]).is_err());
    }
}
