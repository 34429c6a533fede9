//! From requests to images: resolving a reference and fetching what it stands for.

use std::{
    collections::{HashMap, HashSet},
    io::{Read, Write},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use rbc_ir::{Digest, Platform};
use ureq::http::{StatusCode, header};

use super::{
    Client, RegistryError,
    client::{Request, retry},
};
use crate::{
    image::{
        self, Descriptor, Documents, ImageError, MAX_MANIFEST, Reference, Resolved, media_type,
    },
    store::Store,
};

/// How many blobs are fetched at once.
const PARALLEL: usize = 4;

/// Is told how many bytes of a blob are there, from several threads.
pub type Progress<'a> = &'a (dyn Fn(&Descriptor, u64) + Sync);

/// A repository as a source of manifests and configs.
pub struct Remote<'a> {
    client: &'a Client,
    reference: Reference,
    root: Descriptor,
    /// Small documents, which are asked for more than once.
    documents: Mutex<HashMap<Digest, Vec<u8>>>,
}

impl<'a> Remote<'a> {
    /// Looks a reference up. With a digest in it, that is what is asked for and checked.
    pub fn open(client: &'a Client, reference: &Reference) -> Result<Self, RegistryError> {
        let what = reference.familiar();
        let wanted = reference.digest();
        let path = match (wanted, reference.tag()) {
            (Some(digest), _) => format!("manifests/{digest}"),
            (None, tag) => format!("manifests/{}", tag.unwrap_or("latest")),
        };
        let (bytes, kind) = get_manifest(client, reference, &path, &what)?;
        let root = Descriptor::of(&kind, &bytes);
        if let Some(want) = wanted.filter(|want| *want != root.digest) {
            let source = Box::new(ImageError::WrongDigest { want, got: root.digest });
            return Err(RegistryError::Image { what, source });
        }
        let documents = Mutex::new(HashMap::from([(root.digest, bytes)]));
        Ok(Self { client, reference: reference.clone(), root, documents })
    }

    /// What the reference stands for: a manifest or an index.
    pub fn root(&self) -> &Descriptor {
        &self.root
    }

    /// Chooses the image for a platform.
    pub fn resolve(&self, platform: &Platform) -> Result<Resolved, RegistryError> {
        let name = self.reference.familiar();
        image::resolve(self, &self.root, platform, &name).map_err(|source| match source {
            // The name is in it already.
            ImageError::NoPlatform { .. } | ImageError::TooNested { .. } => {
                RegistryError::Protocol {
                    reason: source.to_string().replacen(&format!("{name}: "), "", 1),
                    what: name,
                }
            }
            source => RegistryError::Image { what: name, source: Box::new(source) },
        })
    }

    /// Fetches the blobs of a resolved image into the store, then its manifest, so that a manifest
    /// in the store has all its parts. What is there already is not fetched.
    pub fn fetch(
        &self,
        store: &Store,
        image: &Resolved,
        progress: Progress<'_>,
    ) -> Result<(), RegistryError> {
        let local = |source| RegistryError::Image {
            what: self.reference.familiar(),
            source: Box::new(source),
        };
        let manifest = self.document(&image.descriptor, MAX_MANIFEST).map_err(local)?;
        let mut once = HashSet::new();
        let blobs: Vec<&Descriptor> = image
            .manifest
            .layers
            .iter()
            .filter(|blob| once.insert(blob.digest))
            .filter(|blob| store.blobs().size(&blob.digest) != Some(blob.size))
            .collect();
        let next = AtomicUsize::new(0);
        // Threads of their own: waiting for the network must not hold up the build's pool.
        let results = thread::scope(|scope| {
            let workers: Vec<_> = (0..PARALLEL.min(blobs.len()))
                .map(|_| {
                    scope.spawn(|| {
                        while let Some(blob) = blobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                            if let Err(error) = self.fetch_blob(store, blob, progress) {
                                // The others need not begin another one.
                                next.store(blobs.len(), Ordering::Relaxed);
                                return Err(error);
                            }
                        }
                        Ok(())
                    })
                })
                .collect();
            workers
                .into_iter()
                .map(|worker| {
                    worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                })
                .collect::<Vec<_>>()
        });
        results.into_iter().collect::<Result<(), _>>()?;
        let put = |bytes: &[u8]| store.blobs().write(bytes).map_err(|e| local(e.into()));
        put(&image.config_json)?;
        put(&manifest)?;
        Ok(())
    }

    fn fetch_blob(
        &self,
        store: &Store,
        blob: &Descriptor,
        progress: Progress<'_>,
    ) -> Result<(), RegistryError> {
        let what = format!("{} (blob {})", self.reference.familiar(), blob.digest);
        let local = |source: ImageError| RegistryError::Image {
            what: self.reference.familiar(),
            source: Box::new(source),
        };
        let mut writer = store.blobs().writer().map_err(|e| local(e.into()))?;
        retry(|| {
            let request = Request {
                reference: &self.reference,
                path: &format!("blobs/{}", blob.digest),
                accept: "*/*",
                from: writer.size(),
                what: &what,
            };
            let response = self.client.get_once(&request)?;
            if writer.size() > 0 && !continues(&response, writer.size()) {
                // The server sends all of it again.
                writer = store.blobs().writer().map_err(|e| local(e.into()))?;
            }
            let broken = |reason: String| RegistryError::Broken {
                what: what.clone(),
                host: self.reference.domain().to_owned(),
                reason,
            };
            let mut body = response.into_body().into_with_config().limit(u64::MAX).reader();
            let mut buffer = vec![0; 128 << 10];
            loop {
                match body.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(n) => {
                        if writer.size() + n as u64 > blob.size {
                            return Err(local(ImageError::WrongSize {
                                digest: blob.digest,
                                want: blob.size,
                                got: writer.size() + n as u64,
                            }));
                        }
                        let path = writer.path().to_owned();
                        writer
                            .write_all(&buffer[..n])
                            .map_err(|source| local(ImageError::Io { path, source }))?;
                        progress(blob, writer.size());
                    }
                    Err(error) => return Err(broken(error.to_string())),
                }
            }
            if writer.size() < blob.size {
                return Err(broken(format!("{} of {} bytes came", writer.size(), blob.size)));
            }
            Ok(())
        })?;
        image::publish(writer, Some(blob.digest)).map_err(local)?;
        Ok(())
    }
}

/// Whether an answer goes on at the byte that was asked for.
fn continues(response: &ureq::http::Response<ureq::Body>, from: u64) -> bool {
    response.status() == StatusCode::PARTIAL_CONTENT
        && response
            .headers()
            .get(header::CONTENT_RANGE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|range| range.starts_with(&format!("bytes {from}-")))
}

/// A manifest's bytes and the media type that the registry gave.
fn get_manifest(
    client: &Client,
    reference: &Reference,
    path: &str,
    what: &str,
) -> Result<(Vec<u8>, String), RegistryError> {
    let accept = media_type::MANIFESTS.join(", ");
    retry(|| {
        let request = Request { reference, path, accept: &accept, from: 0, what };
        let response = client.get_once(&request)?;
        let kind = response
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .map(|value| value.split(';').next().unwrap_or_default().trim().to_owned());
        let bytes = read_limited(response, MAX_MANIFEST, reference, what)?;
        Ok((bytes, kind.unwrap_or_default()))
    })
}

fn read_limited(
    response: ureq::http::Response<ureq::Body>,
    limit: u64,
    reference: &Reference,
    what: &str,
) -> Result<Vec<u8>, RegistryError> {
    let mut bytes = Vec::new();
    response
        .into_body()
        .into_with_config()
        .limit(u64::MAX)
        .reader()
        .take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| RegistryError::Broken {
            what: what.to_owned(),
            host: reference.domain().to_owned(),
            reason: error.to_string(),
        })?;
    if bytes.len() as u64 > limit {
        return Err(RegistryError::Protocol {
            what: what.to_owned(),
            reason: format!("the answer is longer than the limit of {limit} bytes for its kind"),
        });
    }
    Ok(bytes)
}

impl Documents for Remote<'_> {
    fn document(&self, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>, ImageError> {
        let digest = descriptor.digest;
        if descriptor.size > limit {
            return Err(ImageError::TooLarge { digest, size: descriptor.size, limit });
        }
        let documents = || self.documents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bytes) = documents().get(&digest) {
            return Ok(bytes.clone());
        }
        let what = self.reference.familiar();
        let remote = |error: RegistryError| match error {
            RegistryError::NotFound { .. } => ImageError::MissingBlob { digest },
            other => ImageError::Remote(Box::new(other)),
        };
        let bytes = if media_type::MANIFESTS.contains(&descriptor.media_type.as_str()) {
            let path = format!("manifests/{digest}");
            get_manifest(self.client, &self.reference, &path, &what).map_err(remote)?.0
        } else {
            let path = format!("blobs/{digest}");
            retry(|| {
                let request = Request {
                    reference: &self.reference,
                    path: &path,
                    accept: "*/*",
                    from: 0,
                    what: &what,
                };
                read_limited(self.client.get_once(&request)?, limit, &self.reference, &what)
            })
            .map_err(remote)?
        };
        descriptor.check(&bytes)?;
        documents().insert(digest, bytes.clone());
        Ok(bytes)
    }
}

/// Fetches an image whose manifest is known, as a graph names it, and keeps it in the store.
pub fn fetch(
    client: &Client,
    store: &Store,
    reference: &Reference,
    manifest: &Digest,
    progress: Progress<'_>,
) -> Result<(), RegistryError> {
    let pinned = reference.with_digest(*manifest);
    let remote = Remote::open(client, &pinned)?;
    // A manifest that no index leads to is taken whatever its platform.
    let image = remote.resolve(&Platform::host())?;
    if image.descriptor.digest != *manifest {
        return Err(RegistryError::Protocol {
            what: pinned.familiar(),
            reason: "it is an index, but an image manifest was expected".to_owned(),
        });
    }
    remote.fetch(store, &image, progress)?;
    keep(store, &pinned, manifest)
}

/// Resolves a reference for a platform, fetches the image and keeps it in the store without
/// naming it.
pub fn pull(
    client: &Client,
    store: &Store,
    reference: &Reference,
    platform: &Platform,
    progress: Progress<'_>,
) -> Result<Resolved, RegistryError> {
    let remote = Remote::open(client, reference)?;
    let image = remote.resolve(platform)?;
    remote.fetch(store, &image, progress)?;
    keep(store, reference, &image.descriptor.digest)?;
    Ok(image)
}

fn keep(store: &Store, reference: &Reference, manifest: &Digest) -> Result<(), RegistryError> {
    image::note_pulled(store, manifest).map_err(|source| RegistryError::Image {
        what: reference.familiar(),
        source: Box::new(source),
    })
}
