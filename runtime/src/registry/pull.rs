//! From requests to images: resolving a reference and fetching what it stands for.

use std::{
    collections::{HashMap, HashSet},
    io::Read,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use rbc_ir::{Digest, Platform};
use ureq::{
    Body,
    http::{HeaderName, Method, Response, header},
};

use super::{
    Client, RegistryError,
    client::Call,
    fetch::{BlobSource, is_damage},
    hosts::Endpoint,
    retry::{Patience, retry_with},
    token::Scope,
    transport::{Payload, header_text, reason},
};
use crate::{
    image::{
        self, Descriptor, Documents, ImageError, MAX_MANIFEST, Reference, Resolved, media_type,
    },
    store::Store,
};

/// How many blobs of an image move at once.
const PARALLEL: usize = 4;

/// When layers are unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unpacking {
    /// Each while it arrives, so that it is ready soon after its last byte.
    WhileFetching,
    /// When they are needed.
    Later,
}

/// Is told how many bytes of a blob are there, from several threads.
pub type Progress<'a> = &'a (dyn Fn(&Descriptor, u64) + Sync);

/// A repository as a source of manifests and configs.
pub struct Remote<'a> {
    client: &'a Client,
    reference: Reference,
    /// Where it may be, mirrors first.
    endpoints: Vec<Endpoint>,
    root: Descriptor,
    /// Small documents, which are asked for more than once.
    documents: Mutex<HashMap<Digest, Vec<u8>>>,
}

impl<'a> Remote<'a> {
    /// Looks a reference up. With a digest in it, that is what is asked for and checked.
    pub fn open(client: &'a Client, reference: &Reference) -> Result<Self, RegistryError> {
        Self::open_at(client, reference, client.endpoints(reference)?)
    }

    fn open_at(
        client: &'a Client,
        reference: &Reference,
        endpoints: Vec<Endpoint>,
    ) -> Result<Self, RegistryError> {
        let what = reference.familiar();
        let wanted = reference.digest();
        let path = match (wanted, reference.tag()) {
            (Some(digest), _) => format!("manifests/{digest}"),
            (None, tag) => format!("manifests/{}", tag.unwrap_or("latest")),
        };
        let (root, bytes) = at_any(&endpoints, |endpoint| {
            let (bytes, kind) = get_manifest(client, endpoint, &path, &what)?;
            let root = Descriptor::of(&kind, &bytes);
            if let Some(want) = wanted.filter(|want| *want != root.digest) {
                let source = Box::new(ImageError::WrongDigest { want, got: root.digest });
                return Err(RegistryError::Image { what: what.clone(), source });
            }
            Ok((root, bytes))
        })?;
        let documents = Mutex::new(HashMap::from([(root.digest, bytes)]));
        Ok(Self { client, reference: reference.clone(), endpoints, root, documents })
    }

    /// As [`Remote::open`] for what a build can do without: nothing is waited for that may come back.
    ///
    /// # Errors
    /// As [`Remote::open`].
    pub fn open_briefly(client: &'a Client, reference: &Reference) -> Result<Self, RegistryError> {
        let mut endpoints = client.endpoints(reference)?;
        endpoints.iter_mut().for_each(|endpoint| endpoint.patience = Patience::Short);
        Self::open_at(client, reference, endpoints)
    }

    /// The repository, without tag and digest.
    pub(crate) fn repository(&self) -> (&str, &str) {
        (self.reference.domain(), self.reference.path())
    }

    /// Brings a blob into the store unless it is there.
    pub(crate) fn bring(&self, store: &Store, blob: &Descriptor) -> Result<(), RegistryError> {
        let what = self.reference.familiar();
        let source = BlobSource { client: self.client, endpoints: &self.endpoints, what: &what };
        source.fetch(store, blob, None, &|_, _| {})
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
        unpacking: Unpacking,
        progress: Progress<'_>,
    ) -> Result<(), RegistryError> {
        let local = |source| RegistryError::Image {
            what: self.reference.familiar(),
            source: Box::new(source),
        };
        let manifest = self.document(&image.descriptor, MAX_MANIFEST).map_err(local)?;
        let mut once = HashSet::new();
        let layers = image.manifest.layers.iter().zip(&image.facts.diff_ids);
        let blobs: Vec<_> = layers
            .filter(|(blob, _)| once.insert(blob.digest))
            .filter(|(blob, _)| store.blobs().size(&blob.digest) != Some(blob.size))
            .collect();
        let what = self.reference.familiar();
        let source = BlobSource { client: self.client, endpoints: &self.endpoints, what: &what };
        in_parallel(&blobs, |(blob, diff_id)| {
            let wanted = match unpacking {
                Unpacking::WhileFetching => Some(*diff_id),
                Unpacking::Later => None,
            };
            source.fetch(store, blob, wanted, progress)
        })?;
        let put = |bytes: &[u8]| store.blobs().write(bytes).map_err(|e| local(e.into()));
        put(&image.config_json)?;
        put(&manifest)?;
        Ok(())
    }
}

/// A manifest's bytes and the media type that the registry gave.
pub(super) fn get_manifest(
    client: &Client,
    endpoint: &Endpoint,
    path: &str,
    what: &str,
) -> Result<(Vec<u8>, String), RegistryError> {
    let headers = [(header::ACCEPT, media_type::MANIFESTS.join(", "))];
    retry_with(&client.stop, endpoint.patience, || {
        let response = get(client, endpoint, path, &headers, what)?;
        let kind = header_text(response.headers(), header::CONTENT_TYPE)
            .map(|value| value.split(';').next().unwrap_or_default().trim().to_owned());
        let bytes = read_limited(response, MAX_MANIFEST, endpoint, what)?;
        Ok((bytes, kind.unwrap_or_default()))
    })
}

/// One attempt to get something from a repository.
pub(super) fn get(
    client: &Client,
    endpoint: &Endpoint,
    path: &str,
    headers: &[(HeaderName, String)],
    what: &str,
) -> Result<Response<Body>, RegistryError> {
    let answer = client.call(Call {
        endpoint,
        scopes: &[Scope::pull(&endpoint.repository)],
        method: Method::GET,
        url: client.url(endpoint, path, what)?,
        headers,
        payload: Payload::Nothing,
        what,
    })?;
    client.expect_success(endpoint, answer, what)
}

fn read_limited(
    response: Response<Body>,
    limit: u64,
    endpoint: &Endpoint,
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
            host: endpoint.host.clone(),
            reason: reason(error.into()),
        })?;
    if bytes.len() as u64 > limit {
        return Err(RegistryError::Protocol {
            what: what.to_owned(),
            reason: format!("the answer is longer than the limit of {limit} bytes for its kind"),
        });
    }
    Ok(bytes)
}

/// Tries one place after the other. If all fail, the last one's failure counts.
pub(super) fn at_any<T>(
    endpoints: &[Endpoint],
    mut attempt: impl FnMut(&Endpoint) -> Result<T, RegistryError>,
) -> Result<T, RegistryError> {
    let (last, mirrors) = endpoints.split_last().expect("a repository is somewhere");
    let mut failures = Vec::new();
    for mirror in mirrors {
        match attempt(mirror) {
            Err(RegistryError::Stopped) => return Err(RegistryError::Stopped),
            Err(error) => failures.push(format!("{}: {error}", mirror.host)),
            done => return done,
        }
    }
    attempt(last).map_err(|error| match error {
        error if failures.is_empty() => error,
        // These say what the answer is, not that there is none.
        error @ (RegistryError::NotFound { .. }
        | RegistryError::Image { .. }
        | RegistryError::Stopped) => error,
        error => RegistryError::Everywhere { last: Box::new(error), mirrors: failures },
    })
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
        let wrong = |source| RegistryError::Image { what: what.clone(), source: Box::new(source) };
        let remote = |error: RegistryError| match error {
            RegistryError::NotFound { .. } => ImageError::MissingBlob { digest },
            RegistryError::Image { source, .. } => *source,
            other => ImageError::Remote(Box::new(other)),
        };
        let bytes = if media_type::MANIFESTS.contains(&descriptor.media_type.as_str()) {
            let path = format!("manifests/{digest}");
            at_any(&self.endpoints, |endpoint| {
                let (bytes, _) = get_manifest(self.client, endpoint, &path, &what)?;
                descriptor.check(&bytes).map_err(wrong)?;
                Ok(bytes)
            })
        } else {
            let path = format!("blobs/{digest}");
            at_any(&self.endpoints, |endpoint| {
                retry_with(&self.client.stop, endpoint.patience, || {
                    let response = get(self.client, endpoint, &path, &[], &what)?;
                    let bytes = read_limited(response, limit, endpoint, &what)?;
                    descriptor.check(&bytes).map_err(wrong)?;
                    Ok(bytes)
                })
            })
        }
        .map_err(remote)?;
        documents().insert(digest, bytes.clone());
        Ok(bytes)
    }
}

/// Does something with each item on a few threads of their own: waiting for the network must not
/// hold up the build's pool. After a failure nothing more is begun.
pub(super) fn in_parallel<T: Sync>(
    items: &[T],
    work: impl Fn(&T) -> Result<(), RegistryError> + Sync,
) -> Result<(), RegistryError> {
    let next = AtomicUsize::new(0);
    let results = thread::scope(|scope| {
        let workers: Vec<_> = (0..PARALLEL.min(items.len()))
            .map(|_| {
                scope.spawn(|| {
                    while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if let Err(error) = work(item) {
                            next.store(items.len(), Ordering::Relaxed);
                            return Err(error);
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect::<Vec<_>>()
    });
    results.into_iter().collect()
}

/// Fetches an image whose manifest is known, as a graph names it, unpacks its layers on the way and
/// keeps it in the store.
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
    remote.fetch(store, &image, Unpacking::WhileFetching, progress)?;
    keep(store, &pinned, manifest)
}

/// Resolves a reference for a platform, fetches the image, unpacks its layers on the way and keeps
/// it in the store without naming it. All its layers are unpacked then, so a build on it can begin
/// at once.
pub fn pull(
    client: &Client,
    store: &Store,
    reference: &Reference,
    platform: &Platform,
    progress: Progress<'_>,
) -> Result<Resolved, RegistryError> {
    let remote = Remote::open(client, reference)?;
    let image = remote.resolve(platform)?;
    let manifest = &image.descriptor.digest;
    let bring = || {
        remote.fetch(store, &image, Unpacking::WhileFetching, progress)?;
        // Blobs that were there before may never have been unpacked.
        image::unpack(store, manifest).map_err(|source| RegistryError::Image {
            what: reference.familiar(),
            source: Box::new(source),
        })
    };
    match bring() {
        // Such a blob of the store is not there any more.
        Err(error) if is_damage(&error) => bring()?,
        brought => brought?,
    };
    keep(store, reference, manifest)?;
    Ok(image)
}

fn keep(store: &Store, reference: &Reference, manifest: &Digest) -> Result<(), RegistryError> {
    image::note_pulled(store, manifest).map_err(|source| RegistryError::Image {
        what: reference.familiar(),
        source: Box::new(source),
    })
}
