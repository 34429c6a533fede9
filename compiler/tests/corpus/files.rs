//! The corpus, and a world in which everything that a Dockerfile names is there.

use std::{fs, path::Path, sync::Arc};

use rbc_compiler::{
    CompileOptions, Compiled, GitRequest, HttpRequest, ImageRequest, NamedContext, ResolveError,
    ResolvedHttp, ResolvedImage, Resolver, compile, diagnostic::Diagnostics, syntax::SourceFile,
};
use rbc_ir::{Digest, ImageConfig, Platform, Selection};

/// All Dockerfiles of the corpus, with the names of their cases.
pub fn dockerfiles() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/conformance/cases");
    let mut found = Vec::new();
    for area in fs::read_dir(&root).expect("the conformance corpus") {
        for case in fs::read_dir(area.expect("an area").path()).expect("an area") {
            let path = case.expect("a case").path();
            if path.extension().is_some_and(|extension| extension == "case") {
                let text = String::from_utf8_lossy(&fs::read(&path).expect("a case")).into_owned();
                found.extend(dockerfile(&text).map(|text| (path.display().to_string(), text)));
            }
        }
    }
    found.sort();
    assert!(found.len() > 300, "only {} Dockerfiles", found.len());
    found
}

/// The first Dockerfile of a case file.
fn dockerfile(case: &str) -> Option<String> {
    let is_header = |line: &str| line.starts_with("-- ") && line.trim_end().ends_with(" --");
    let mut lines = case.split_inclusive('\n');
    lines.find(|line| is_header(line) && line.contains("Dockerfile --"))?;
    Some(lines.take_while(|line| !is_header(line)).collect())
}

/// A world that has every image, file, repository and address.
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

    fn named_context(&self, _: &str) -> Result<NamedContext, ResolveError> {
        Ok(NamedContext::Local)
    }

    fn context_digest(&self, name: &str, selection: &Selection) -> Result<Digest, ResolveError> {
        Ok(Digest::of(format!("{name} {selection:?}").as_bytes()))
    }

    fn git(&self, request: &GitRequest) -> Result<String, ResolveError> {
        Ok(Digest::of(request.reference.as_bytes()).hex())
    }

    fn http(&self, request: &HttpRequest) -> Result<ResolvedHttp, ResolveError> {
        let checksum = request.checksum.unwrap_or_else(|| Digest::of(request.url.as_bytes()));
        Ok(ResolvedHttp { checksum, mtime: 7 })
    }
}

pub fn source(text: &str) -> Arc<SourceFile> {
    Arc::new(SourceFile::new("Dockerfile", text))
}

pub fn compiled(text: &str) -> Result<Compiled, Diagnostics> {
    let options = CompileOptions {
        host_platform: Some(Platform::new("linux", "amd64", "")),
        ..CompileOptions::default()
    };
    compile(&source(text), &options, &Everything)
}
