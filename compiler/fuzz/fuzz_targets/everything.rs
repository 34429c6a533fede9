//! A world in which everything is there, for the targets that compile.

use rbc_compiler::{
    GitRequest, HttpRequest, ImageRequest, ResolveError, ResolvedHttp, ResolvedImage, Resolver,
};
use rbc_ir::{Digest, ImageConfig, Selection};

/// Answers what a Dockerfile without named contexts can ask for.
pub struct Everything;

impl Resolver for Everything {
    fn image(&self, request: &ImageRequest) -> Result<ResolvedImage, ResolveError> {
        Ok(ResolvedImage {
            reference: request.reference.clone(),
            manifest: Digest::of(request.reference.as_bytes()),
            platform: request.platform.clone(),
            config: ImageConfig::default(),
        })
    }

    fn context_digest(&self, _: &str, selection: &Selection) -> Result<Digest, ResolveError> {
        Ok(Digest::of(format!("{selection:?}").as_bytes()))
    }

    fn git(&self, _: &GitRequest) -> Result<String, ResolveError> {
        Ok("0".repeat(40))
    }

    fn http(&self, request: &HttpRequest) -> Result<ResolvedHttp, ResolveError> {
        let checksum = request.checksum.unwrap_or_else(|| Digest::of(request.url.as_bytes()));
        Ok(ResolvedHttp { checksum, mtime: 0 })
    }
}
