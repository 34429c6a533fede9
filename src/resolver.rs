//! Answers the compiler's questions about the outside with the runtime's means.

use std::{path::Path, sync::OnceLock};

use rbc_compiler::{
    GitRequest, HttpRequest, ImageRequest, NamedContext, Pull, ResolveError, ResolvedHttp,
    ResolvedImage, Resolver, suggest,
};
use rbc_ir::{Digest, ImageLocation, Selection};
use rbc_runtime::{
    build::{ContextError, Contexts},
    image::{self, Layout, LayoutName, Reference, Resolved},
    registry::{Client, Remote},
    source::{git, http},
    store::Store,
    tree::TreeError,
};

use crate::{
    cli::{BuildContext, ContextValue},
    inputs::IgnoreFile,
};

/// How many files beside a missing one are looked at for one with a similar name.
const MAX_NEIGHBOURS: usize = 10_000;

/// Looks things up in the state folder, the contexts and registries.
pub struct RuntimeResolver<'a> {
    pub store: &'a Store,
    pub contexts: &'a Contexts,
    pub named: &'a [BuildContext],
    pub registry: &'a Client,
    /// The ssh agent of git sources.
    pub agent: Option<&'a Path>,
    /// The ignore file of the main context.
    ignore: Option<&'a IgnoreFile>,
    downloads: OnceLock<http::Client>,
}

impl<'a> RuntimeResolver<'a> {
    /// A resolver that has asked nothing yet.
    pub fn new(
        store: &'a Store,
        contexts: &'a Contexts,
        named: &'a [BuildContext],
        (registry, agent): (&'a Client, Option<&'a Path>),
    ) -> Self {
        Self { store, contexts, named, registry, agent, ignore: None, downloads: OnceLock::new() }
    }

    /// The same with the ignore file of the main context, which it names in errors.
    pub fn with_ignore(self, ignore: Option<&'a IgnoreFile>) -> Self {
        Self { ignore, ..self }
    }

    /// Why a file of a context is not to be found, or what may be meant.
    fn missing(&self, name: &str, path: &Path) -> ResolveError {
        let missing = ResolveError::new(format!("{path:?}: not found"));
        let path = path.strip_prefix("/").unwrap_or(path);
        let Some(folder) = self.contexts.path(name) else { return missing };
        if let Some(pattern) = self.contexts.hidden_by(name, path) {
            let own = IgnoreFile::read(folder.join(".dockerignore"));
            let own = own.ok().flatten().filter(|_| !name.is_empty());
            let place = own.as_ref().or(self.ignore).and_then(|file| file.place(&pattern));
            let place = place.unwrap_or_else(|| "the ignore file".to_owned());
            return missing.with_help(format!("{place} hides it: {pattern}"));
        }
        let above = path.parent().unwrap_or(Path::new(""));
        let Ok(entries) = std::fs::read_dir(folder.join(above)) else { return missing };
        let names: Vec<String> = entries
            .take(MAX_NEIGHBOURS)
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|file| self.contexts.hidden_by(name, &above.join(file)).is_none())
            .collect();
        let wanted = path.file_name().unwrap_or_default().to_string_lossy();
        match suggest::nearest(&wanted, names.iter().map(String::as_str)) {
            Some(near) => missing.with_help(format!("did you mean {:?}?", above.join(near))),
            None => missing.with_help(format!("the build context is {}", folder.display())),
        }
    }

    fn find(&self, name: &str) -> Result<&ContextValue, ResolveError> {
        self.named
            .iter()
            .rev()
            .find(|context| context.name == name)
            .map(|context| &context.value)
            .ok_or_else(|| ResolveError::new(format!("there is no build context {name:?}")))
    }

    fn in_layout(&self, path: &Path, request: &ImageRequest) -> Result<Resolved, ResolveError> {
        let layout = Layout::open(self.store, path).map_err(failed)?;
        let name = match request.reference.as_str() {
            "" => LayoutName::Default,
            text => match text.parse() {
                Ok(digest) => LayoutName::Digest(digest),
                Err(_) => LayoutName::Tag(text.to_owned()),
            },
        };
        let root = layout.find(&name).map_err(failed)?;
        let shown = path.display().to_string();
        image::resolve(&layout, &root, &request.platform, &shown).map_err(failed)
    }

    fn in_store_or_registry(&self, request: &ImageRequest) -> Result<Resolved, ResolveError> {
        let reference: Reference = request.reference.parse().map_err(failed)?;
        if request.pull == Pull::IfMissing
            && let Some(image) =
                image::resolve_local(self.store, &reference, &request.platform).map_err(failed)?
        {
            return Ok(image);
        }
        Remote::open(self.registry, &reference)
            .and_then(|remote| remote.resolve(&request.platform))
            .map_err(|error| {
                // The diagnostic begins with the name as it is written.
                let text = error.to_string();
                let bare = text.strip_prefix(&format!("{}: ", reference.familiar()));
                failed(bare.unwrap_or(&text)).with_help(format!(
                    "{} is not in the local image store either: `rbc images` lists what is, \
                     `rbc load` fills it from an archive",
                    reference.familiar()
                ))
            })
    }
}

fn failed(error: impl std::fmt::Display) -> ResolveError {
    ResolveError::new(error.to_string())
}

impl Resolver for RuntimeResolver<'_> {
    fn image(&self, request: &ImageRequest) -> Result<ResolvedImage, ResolveError> {
        let image = match &request.location {
            ImageLocation::OciLayout(name) => match self.find(name)? {
                ContextValue::OciLayout { path, .. } => self.in_layout(path, request)?,
                _ => return Err(ResolveError::new(format!("{name:?} is no OCI layout"))),
            },
            ImageLocation::StoreOrRegistry => self.in_store_or_registry(request)?,
        };
        let reference = match request.reference.as_str() {
            // The only image of a layout needs no name, but a source in the graph has one.
            "" => image.descriptor.digest.to_string(),
            named => named.to_owned(),
        };
        Ok(ResolvedImage {
            reference,
            manifest: image.descriptor.digest,
            platform: image.platform,
            config: image.config,
        })
    }

    fn named_context(&self, name: &str) -> Result<NamedContext, ResolveError> {
        Ok(match self.find(name)? {
            ContextValue::Folder(_) | ContextValue::File(_) => NamedContext::Local,
            ContextValue::Image(reference) => NamedContext::Image(reference.clone()),
            ContextValue::OciLayout { image, .. } => NamedContext::OciLayout(image.clone()),
            ContextValue::Git(address) => NamedContext::Git(address.clone()),
            ContextValue::Stage(stage) => NamedContext::Stage(stage.clone()),
        })
    }

    fn context_digest(&self, name: &str, selection: &Selection) -> Result<Digest, ResolveError> {
        self.contexts.digest(name, selection).map_err(|error| match error {
            ContextError::Tree(TreeError::NotFound(path, _)) => self.missing(name, &path),
            other => failed(other),
        })
    }

    fn git(&self, request: &GitRequest) -> Result<String, ResolveError> {
        let checksum = request.checksum.as_deref();
        git::resolve(&request.url, &request.reference, checksum, self.agent).map_err(failed)
    }

    fn http(&self, request: &HttpRequest) -> Result<ResolvedHttp, ResolveError> {
        let client = self.downloads.get_or_init(http::Client::new);
        let found = client.resolve(self.store, &request.url, request.checksum).map_err(failed)?;
        Ok(ResolvedHttp { checksum: found.checksum, mtime: found.mtime })
    }
}
