//! Pushing: an image of the store with all that it consists of, into a repository.
//!
//! Blobs go first, a few at a time, then manifests from the leaves to the root, so that a name in
//! the registry never stands for something incomplete.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Mutex, PoisonError},
};

use rbc_ir::{Digest, Platform};
use ureq::{
    Body,
    http::{Method, Response, header},
};

use super::{
    Client, Progress, RegistryError, Sent,
    client::{Call, DIGEST_HEADER},
    hosts::Endpoint,
    pull::in_parallel,
    referrers,
    retry::retry,
    token::Scope,
    transport::{Payload, header_text},
    upload::Uploader,
};
use crate::{
    image::{
        Descriptor, Document, Documents, ImageError, MAX_MANIFEST, Reference, describe, media_type,
    },
    store::Store,
};

/// What a push did, for one repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// The registry and repository.
    pub repository: String,
    /// The tags that now stand for the image; empty if it is there by digest only.
    pub tags: Vec<String>,
    /// The manifest or index.
    pub root: Descriptor,
    /// What it took for each blob.
    pub blobs: Vec<(Digest, Sent)>,
}

/// Whether names get the image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Naming {
    /// The tags of the names stand for it afterwards.
    #[default]
    Tags,
    /// It can be had by its digest only.
    DigestOnly,
}

/// Puts the image with the manifest or index `root` into the repositories of `names`.
///
/// # Errors
/// If a part of the image is not in the store, and what the registries refuse. Names that were
/// pushed before the failure stay.
pub fn push(
    client: &Client,
    store: &Store,
    root: &Digest,
    names: &[Reference],
    naming: Naming,
    progress: Progress<'_>,
) -> Result<Vec<Pushed>, RegistryError> {
    let mut repositories: BTreeMap<(&str, &str), Vec<&Reference>> = BTreeMap::new();
    for name in names {
        repositories.entry((name.domain(), name.path())).or_default().push(name);
    }
    let mut done = Vec::new();
    for ((domain, path), names) in repositories {
        let what = names.first().map_or_else(String::new, |name| name.familiar());
        let parts = Parts::of(store, root, &what)?;
        let Some(endpoint) = names.first().map(|name| client.endpoints(name)).transpose()? else {
            continue;
        };
        // Mirrors are for reading.
        let endpoint = endpoint.into_iter().next_back().expect("a repository is somewhere");
        let pusher = Pusher { client, store, endpoint: &endpoint, what: &what };
        let tags: Vec<String> = match naming {
            Naming::Tags => {
                names.iter().map(|name| name.tag().unwrap_or("latest").to_owned()).collect()
            }
            Naming::DigestOnly => Vec::new(),
        };
        let blobs = pusher.push(&parts, &tags, progress)?;
        let repository = format!("{domain}/{path}");
        done.push(Pushed { repository, tags, root: parts.root().clone(), blobs });
    }
    Ok(done)
}

/// All that an image consists of.
struct Parts {
    /// Configs and layers, each once.
    blobs: Vec<Descriptor>,
    /// Manifests and indexes, each before those that list it; the last one is the root.
    manifests: Vec<(Descriptor, Vec<u8>)>,
}

impl Parts {
    fn of(store: &Store, root: &Digest, what: &str) -> Result<Self, RegistryError> {
        let wrong =
            |source| RegistryError::Image { what: what.to_owned(), source: Box::new(source) };
        let mut parts = Self { blobs: Vec::new(), manifests: Vec::new() };
        let mut seen = HashSet::new();
        let mut pending = vec![describe(store, root).map_err(wrong)?];
        while let Some(descriptor) = pending.pop() {
            if !seen.insert(descriptor.digest) {
                continue;
            }
            let bytes = match (store.document(&descriptor, MAX_MANIFEST), &descriptor.platform) {
                (Err(ImageError::MissingBlob { .. }), Some(platform)) => {
                    let part = format!("the part for {}", Platform::from(platform));
                    return Err(RegistryError::Incomplete { what: what.to_owned(), part });
                }
                (bytes, _) => bytes.map_err(wrong)?,
            };
            let document = Document::parse(&bytes, &descriptor.media_type, &descriptor.digest)
                .map_err(wrong)?;
            let (own, usual) = match document {
                Document::Index(index) => {
                    pending.extend(index.manifests);
                    (index.media_type, media_type::INDEX)
                }
                Document::Manifest(manifest) => {
                    for blob in std::iter::once(manifest.config).chain(manifest.layers) {
                        // These must be had from where they are published.
                        if seen.insert(blob.digest) && !media_type::is_foreign(&blob.media_type) {
                            parts.blobs.push(blob);
                        }
                    }
                    (manifest.media_type, media_type::MANIFEST)
                }
            };
            let declared = Some(descriptor.media_type.clone()).filter(|kind| !kind.is_empty());
            let kind = own.or(declared).unwrap_or_else(|| usual.to_owned());
            parts.manifests.push((Descriptor { media_type: kind, ..descriptor }, bytes));
        }
        parts.manifests.reverse();
        // An image that two nested indexes list was met on the way to one of them.
        parts
            .manifests
            .sort_by_key(|(descriptor, _)| crate::image::is_index_type(&descriptor.media_type));
        Ok(parts)
    }

    fn root(&self) -> &Descriptor {
        &self.manifests.last().expect("an image has a manifest").0
    }
}

pub(super) struct Pusher<'a> {
    pub(super) client: &'a Client,
    store: &'a Store,
    pub(super) endpoint: &'a Endpoint,
    pub(super) what: &'a str,
}

impl Pusher<'_> {
    fn push(
        &self,
        parts: &Parts,
        tags: &[String],
        progress: Progress<'_>,
    ) -> Result<Vec<(Digest, Sent)>, RegistryError> {
        let sent = Mutex::new(Vec::new());
        in_parallel(&parts.blobs, |blob| {
            let uploader = Uploader {
                client: self.client,
                store: self.store,
                endpoint: self.endpoint,
                what: &format!("{}: {}", self.what, blob.digest.short()),
            };
            let how = uploader.send(blob, progress)?;
            self.note(&blob.digest)?;
            sent.lock().unwrap_or_else(PoisonError::into_inner).push((blob.digest, how));
            Ok(())
        })?;
        let (root, children) = parts.manifests.split_last().expect("an image has a manifest");
        for (descriptor, bytes) in children {
            let answer = self.put(descriptor, bytes, &descriptor.digest.to_string())?;
            referrers::note(self, descriptor, bytes, &answer)?;
        }
        let (descriptor, bytes) = root;
        if tags.is_empty() {
            self.put(descriptor, bytes, &descriptor.digest.to_string())?;
        }
        for tag in tags {
            self.put(descriptor, bytes, tag)?;
        }
        let mut sent = sent.into_inner().unwrap_or_else(PoisonError::into_inner);
        // In the image's order, not in that of arrival.
        let order = |digest: &Digest| parts.blobs.iter().position(|blob| blob.digest == *digest);
        sent.sort_by_key(|(digest, _)| order(digest));
        Ok(sent)
    }

    /// Puts a manifest under a tag or its digest.
    pub(super) fn put(
        &self,
        descriptor: &Descriptor,
        bytes: &[u8],
        name: &str,
    ) -> Result<Response<Body>, RegistryError> {
        let headers = [(header::CONTENT_TYPE, descriptor.media_type.clone())];
        let response = retry(&self.client.stop, || {
            let url = self.client.url(self.endpoint, &format!("manifests/{name}"), self.what)?;
            let answer = self.client.call(Call {
                endpoint: self.endpoint,
                scopes: &[Scope::push(&self.endpoint.repository)],
                method: Method::PUT,
                url,
                headers: &headers,
                payload: Payload::Bytes(bytes),
                what: self.what,
            })?;
            self.client.expect_success(self.endpoint, answer, self.what)
        })?;
        // Not to be believed, but a registry that changed the manifest had better be noticed.
        match header_text(response.headers(), DIGEST_HEADER) {
            Some(said) if said != descriptor.digest.to_string() => Err(RegistryError::Protocol {
                what: self.what.to_owned(),
                reason: format!(
                    "{} stored another manifest than the one sent: {said} instead of {}",
                    self.endpoint.host, descriptor.digest
                ),
            }),
            _ => Ok(response),
        }
    }

    fn note(&self, digest: &Digest) -> Result<(), RegistryError> {
        let Endpoint { domain, repository, .. } = self.endpoint;
        self.store.note_blob_place(digest, domain, repository).map_err(|source| {
            RegistryError::Image { what: self.what.to_owned(), source: Box::new(source.into()) }
        })
    }
}
