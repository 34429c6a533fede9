//! A world for the compiler to look into: images, contexts, repositories and downloads in memory.

use std::{cell::RefCell, collections::BTreeMap, sync::Arc};

use rbc_compiler::{
    CompileOptions, Compiled, GitRequest, HttpRequest, ImageRequest, NamedContext, ResolveError,
    ResolvedHttp, ResolvedImage, Resolver, compile, diagnostic::Style, syntax::SourceFile,
};
use rbc_ir::{
    ContainerConfig, Digest, History, ImageConfig, Platform, Selection, pattern::match_path,
};

/// The outside, as far as a test needs it.
pub struct World {
    /// Configs by normalised reference.
    pub images: BTreeMap<String, ImageConfig>,
    /// Paths of the contexts by name; the empty one is the main context.
    pub contexts: BTreeMap<String, Vec<&'static str>>,
    /// What named contexts stand for.
    pub named: BTreeMap<String, NamedContext>,
    /// All images that were asked for, in order.
    pub asked: RefCell<Vec<String>>,
}

impl World {
    /// One with `busybox` and a few files.
    pub fn new() -> Self {
        let busybox = ImageConfig {
            config: ContainerConfig {
                env: vec!["PATH=/bin".to_owned()],
                cmd: Some(vec!["sh".to_owned()]),
                ..ContainerConfig::default()
            },
            history: vec![History { created_by: "made".to_owned(), ..History::default() }],
            ..ImageConfig::default()
        };
        Self {
            images: BTreeMap::from([("docker.io/library/busybox:latest".to_owned(), busybox)]),
            contexts: BTreeMap::from([(String::new(), vec!["a.txt", "b.txt", "src/main.c"])]),
            named: BTreeMap::new(),
            asked: RefCell::new(Vec::new()),
        }
    }

    /// Compiles a Dockerfile that must be right.
    pub fn compile(&self, text: &str, options: &CompileOptions) -> Compiled {
        let source = Arc::new(SourceFile::new("Dockerfile", text));
        let compiled = compile(&source, options, self)
            .unwrap_or_else(|errors| panic!("{}", errors.render(Style::Plain)));
        compiled.graph.validate().expect("a valid graph");
        compiled
    }

    /// What is said about a Dockerfile that must be wrong.
    pub fn errors(&self, text: &str, options: &CompileOptions) -> String {
        let source = Arc::new(SourceFile::new("Dockerfile", text));
        compile(&source, options, self).expect_err(text).render(Style::Plain)
    }
}

impl Resolver for World {
    fn image(&self, request: &ImageRequest) -> Result<ResolvedImage, ResolveError> {
        self.asked.borrow_mut().push(request.reference.clone());
        let config = self
            .images
            .get(&request.reference)
            .ok_or_else(|| ResolveError::new(format!("{}: not found", request.reference)))?;
        Ok(ResolvedImage {
            reference: request.reference.clone(),
            manifest: Digest::of(format!("{} {}", request.reference, request.platform).as_bytes()),
            platform: request.platform.clone(),
            config: config.clone(),
        })
    }

    fn named_context(&self, name: &str) -> Result<NamedContext, ResolveError> {
        self.named.get(name).cloned().ok_or_else(|| ResolveError::new(format!("no context {name}")))
    }

    fn context_digest(&self, name: &str, selection: &Selection) -> Result<Digest, ResolveError> {
        let files = self
            .contexts
            .get(name)
            .ok_or_else(|| ResolveError::new(format!("no context {name:?}")))?;
        for path in &selection.paths {
            let plain = path.path.replace("/./", "/");
            let is_there = plain.is_empty()
                || files.iter().any(|file| {
                    *file == plain || file.strip_prefix(&plain).is_some_and(|r| r.starts_with('/'))
                });
            if path.wildcard {
                match_path(&path.path, "").map_err(|e| ResolveError::new(e.to_string()))?;
            } else if !is_there {
                return Err(ResolveError::new(format!("\"/{plain}\": not found"))
                    .with_help("the pattern \"secret*\" of .dockerignore hides it"));
            }
        }
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

/// The default options on a machine that does not depend on where the tests run.
pub fn options() -> CompileOptions {
    CompileOptions {
        host_platform: Some(Platform::new("linux", "amd64", "")),
        ..CompileOptions::default()
    }
}
