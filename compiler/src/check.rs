//! Only the build checks: what `rbc build --check` asks for.
//!
//! Goes the whole way of [`crate::compile`] for all stages, but looks at nothing outside except
//! base images, and does without those that cannot be had.

use std::{cell::RefCell, ops::RangeInclusive, sync::Arc};

use rbc_ir::{Digest, ImageConfig, Selection};

use crate::{
    compile::translate,
    diagnostic::{Diagnostic, Diagnostics, Location},
    lint::{Linter, Rule},
    lower::Scope,
    options::CompileOptions,
    resolver::{
        GitRequest, HttpRequest, ImageRequest, NamedContext, ResolveError, ResolvedHttp,
        ResolvedImage, Resolver,
    },
    syntax::{self, Dockerfile, SourceFile},
};

/// What the checks say about a Dockerfile.
#[derive(Debug)]
#[non_exhaustive]
pub struct Checked {
    /// What was found, in the order of the text.
    pub findings: Vec<Finding>,
    /// Why it cannot be built, as far as that shows without building.
    pub errors: Diagnostics,
    /// Base images that could not be looked at, and why: what they set is not known.
    pub unknown_images: Vec<String>,
    /// The text, if it can be split into instructions.
    dockerfile: Option<Dockerfile>,
}

/// What a rule says about a place.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Finding {
    /// The rule.
    pub rule: Rule,
    /// The message with its place and advice.
    pub diagnostic: Diagnostic,
    /// The lines that Docker gives as the place: those of the whole instruction.
    pub lines: RangeInclusive<usize>,
}

impl Checked {
    /// The lines that Docker gives as the place of [`errors`](Self::errors): those of the whole
    /// instruction, if the text can be split into instructions.
    pub fn lines(&self, place: &Location) -> RangeInclusive<usize> {
        lines(self.dockerfile.as_ref(), place)
    }
}

/// The lines of the instruction that a place is in; those of the place itself in a text that has no
/// instructions or, being a trigger of a base image, is another one.
fn lines(dockerfile: Option<&Dockerfile>, place: &Location) -> RangeInclusive<usize> {
    let source = &place.source;
    let instruction = dockerfile
        .filter(|file| Arc::ptr_eq(&file.source, source))
        .and_then(|file| file.instruction_at(place.span));
    match instruction {
        Some(instruction) => instruction.lines(source),
        None => source.line(place.span.start)..=source.line(place.span.end),
    }
}

/// Checks a Dockerfile. `resolver` is asked for images and named contexts only.
pub fn check(
    source: &Arc<SourceFile>,
    options: &CompileOptions,
    resolver: &dyn Resolver,
) -> Checked {
    let outside = Outside { resolver, unknown: RefCell::new(Vec::new()) };
    let mut lint = Linter::default();
    let result = translate(source, options, &outside, Scope::Every, &mut lint);
    let mut errors = result.err().unwrap_or_default();
    if !errors.has_errors() {
        errors.extend(lint.failure());
    }
    let unknown_images = outside.unknown.into_inner();
    let dockerfile = syntax::parse(Arc::clone(source)).ok();
    let mut findings: Vec<Finding> = lint
        .found
        .into_iter()
        .filter_map(|found| {
            let rule = Rule::by_name(found.code)?;
            let note = "a base image could not be looked at: it may set this variable";
            let is_guess = rule == Rule::UndefinedVar && !unknown_images.is_empty();
            let diagnostic = if is_guess { found.note(note) } else { found };
            let place = diagnostic.location.as_deref()?;
            let mut lines = lines(dockerfile.as_ref(), place);
            if rule == Rule::NoEmptyContinuation {
                let file = dockerfile.as_ref()?;
                let last = file.instruction_at(place.span)?.last_line(source);
                lines = last..=last;
            }
            Some(Finding { rule, diagnostic, lines })
        })
        .collect();
    findings
        .sort_by_key(|finding| finding.diagnostic.location.as_ref().map(|place| place.span.start));
    Checked { findings, errors, unknown_images, dockerfile }
}

/// The outside as checks need it: contents make no difference.
struct Outside<'a> {
    resolver: &'a dyn Resolver,
    unknown: RefCell<Vec<String>>,
}

impl Outside<'_> {
    fn or_unknown(
        &self,
        request: &ImageRequest,
        answer: Result<ResolvedImage, ResolveError>,
    ) -> Result<ResolvedImage, ResolveError> {
        answer.or_else(|error| {
            self.unknown.borrow_mut().push(format!("{}: {}", request.reference, error.message));
            Ok(ResolvedImage {
                reference: request.reference.clone(),
                manifest: Digest::of(request.reference.as_bytes()),
                platform: request.platform.clone(),
                config: ImageConfig::default(),
            })
        })
    }
}

impl Resolver for Outside<'_> {
    fn image(&self, request: &ImageRequest) -> Result<ResolvedImage, ResolveError> {
        self.or_unknown(request, self.resolver.image(request))
    }

    fn images(&self, requests: &[ImageRequest]) -> Vec<Result<ResolvedImage, ResolveError>> {
        let answers = self.resolver.images(requests);
        requests
            .iter()
            .zip(answers)
            .map(|(request, answer)| self.or_unknown(request, answer))
            .collect()
    }

    fn named_context(&self, name: &str) -> Result<NamedContext, ResolveError> {
        self.resolver.named_context(name)
    }

    fn context_digest(&self, name: &str, selection: &Selection) -> Result<Digest, ResolveError> {
        Ok(Digest::of(format!("{name} {selection:?}").as_bytes()))
    }

    fn git(&self, request: &GitRequest) -> Result<String, ResolveError> {
        let known = request.checksum.clone().filter(|commit| commit.len() == 40);
        Ok(known.unwrap_or_else(|| "0".repeat(40)))
    }

    fn http(&self, request: &HttpRequest) -> Result<ResolvedHttp, ResolveError> {
        let checksum = request.checksum.unwrap_or_else(|| Digest::of(request.url.as_bytes()));
        Ok(ResolvedHttp { checksum, mtime: 0 })
    }
}
