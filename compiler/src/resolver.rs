//! The compiler's only way to the outside. Whatever a graph pins (manifests, contents of contexts,
//! commits, checksums) is asked here; the runtime answers with its store, and tests from memory.

use rbc_ir::{Digest, ImageConfig, ImageLocation, Platform, Selection};

use crate::options::Pull;

/// Looks up what a Dockerfile refers to. Whatever an implementation leaves out is refused where a
/// Dockerfile asks for it, so `impl Resolver for Nowhere {}` compiles what needs nothing from
/// outside.
pub trait Resolver {
    /// Finds an image and reads its config.
    fn image(&self, request: &ImageRequest) -> Result<ResolvedImage, ResolveError> {
        Err(ResolveError::new(format!("{}: no images can be had here", request.reference)))
    }

    /// Finds several images that do not depend on each other; the answers are in the order of the
    /// requests. Worth overriding where a look-up waits for the network.
    fn images(&self, requests: &[ImageRequest]) -> Vec<Result<ResolvedImage, ResolveError>> {
        requests.iter().map(|request| self.image(request)).collect()
    }

    /// What the named context stands for. Only asked for names of
    /// [`CompileOptions::named_contexts`](crate::CompileOptions::named_contexts).
    fn named_context(&self, name: &str) -> Result<NamedContext, ResolveError> {
        Err(ResolveError::new(format!("there is no build context {name:?}")))
    }

    /// Merkle digest of what a selection takes from a local context; the empty name is the main
    /// build context. A named path that is missing is an error whose text holds
    /// `"/PATH": not found`; a pattern that matches nothing is none.
    fn context_digest(&self, _name: &str, _selection: &Selection) -> Result<Digest, ResolveError> {
        Err(ResolveError::new("there is no build context"))
    }

    /// Resolves a git reference to a commit (40 or 64 hexadecimal digits).
    fn git(&self, request: &GitRequest) -> Result<String, ResolveError> {
        Err(ResolveError::new(format!("{}: git cannot be used here", request.url)))
    }

    /// Fetches what is needed to pin a file at an HTTP(S) address.
    fn http(&self, request: &HttpRequest) -> Result<ResolvedHttp, ResolveError> {
        Err(ResolveError::new(format!("{}: the web cannot be reached from here", request.url)))
    }
}

/// Why something cannot be resolved. Its text is shown to the user at the instruction that asked.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ResolveError {
    /// What went wrong, naming the object.
    pub message: String,
    /// What the user can do about it, for example which ignore pattern hides a file.
    pub help: Option<String>,
}

impl ResolveError {
    /// An error without advice.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None }
    }

    /// Adds advice.
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// Asks for an image.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ImageRequest {
    /// Normalised reference with a tag or digest, for example `docker.io/library/alpine:latest`.
    /// For an image of an OCI layout: what stands in the layout (tag or digest), possibly empty.
    pub reference: String,
    /// Wanted platform.
    pub platform: Platform,
    /// Where to look.
    pub location: ImageLocation,
    /// Whether the registry is asked although the store has the image.
    pub pull: Pull,
}

/// An image that was found.
#[derive(Clone, Debug)]
pub struct ResolvedImage {
    /// Normalised reference by which the runtime finds the manifest again.
    pub reference: String,
    /// Digest of the manifest of the chosen platform.
    pub manifest: Digest,
    /// Platform that the image's config states.
    pub platform: Platform,
    /// The image's config.
    pub config: ImageConfig,
}

/// What a named context (`--build-context NAME=VALUE`) stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamedContext {
    /// A folder, read with its own ignore file.
    Local,
    /// An image of the store or a registry (`docker-image://REFERENCE`); `scratch` is the empty
    /// root.
    Image(String),
    /// An image of an OCI layout (`oci-layout://PATH[:TAG|@DIGEST]`); the text is the tag or
    /// digest, possibly empty.
    OciLayout(String),
    /// A stage of the same Dockerfile (`target:NAME`).
    Stage(String),
    /// A git repository, as an address that ADD takes.
    Git(String),
}

/// Asks for the commit that a git reference means.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GitRequest {
    /// Where to clone from.
    pub url: String,
    /// Branch, tag or commit; empty means the default branch.
    pub reference: String,
    /// Commit that must come out, if the Dockerfile states one; possibly abbreviated.
    pub checksum: Option<String>,
}

/// Asks for a file at an address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpRequest {
    /// The address.
    pub url: String,
    /// Digest of the body, if the Dockerfile states one. The answer must have it.
    pub checksum: Option<Digest>,
}

/// A file at an address, pinned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedHttp {
    /// Digest of the body.
    pub checksum: Digest,
    /// `Last-Modified` in seconds since the epoch; 0 if unknown.
    pub mtime: i64,
}
