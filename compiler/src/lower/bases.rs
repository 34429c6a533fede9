//! Finds out what a target needs and where that comes from: follows bases, `--from` and the ONBUILD
//! triggers of images, and asks the resolver for every image on the way.

use std::{collections::HashMap, sync::Arc};

use rbc_ir::{ImageLocation, Platform};

use crate::{
    diagnostic::{Diagnostic, Diagnostics, MAX_ERRORS},
    git_ref::{self, GitRef},
    instruction::{self, Command},
    options::CompileOptions,
    pins::Pins,
    reference,
    resolver::{GitRequest, ImageRequest, NamedContext, ResolveError, ResolvedImage},
    stage::{Base, Stage, StageId, Stages, Step},
    suggest::nearest,
    syntax::Span,
};

/// Images that people misspell most.
const COMMON_IMAGES: [&str; 7] =
    ["alpine", "busybox", "centos", "debian", "golang", "ubuntu", "fedora"];

/// Where a stage's first files come from, resolved.
#[derive(Clone, Debug)]
pub(super) enum Origin {
    /// Nowhere.
    Scratch,
    /// Another stage.
    Stage(StageId),
    /// An image.
    Image {
        /// What was found.
        image: Arc<ResolvedImage>,
        /// The platform that was asked for.
        platform: Platform,
        /// Where it was found.
        location: ImageLocation,
    },
    /// A local context, by name.
    Local(String),
    /// A git repository at a commit.
    Git {
        /// What was asked for.
        git: GitRef,
        /// The commit.
        commit: String,
    },
}

/// What [`resolve`] asks with.
pub(super) struct Request<'a, 'r> {
    pub options: &'a CompileOptions,
    pub pins: &'a mut Pins<'r>,
    pub platform: &'a Platform,
}

/// The origin of every stage that those of `wave` need; `None` for the others. ONBUILD triggers are put
/// in front of the steps of the stages in which they fire.
pub(super) fn resolve(
    stages: &mut Stages,
    mut wave: Vec<StageId>,
    request: &mut Request<'_, '_>,
) -> Result<Vec<Option<Origin>>, Diagnostics> {
    let mut origins: Vec<Option<Origin>> = vec![None; stages.list.len()];
    let mut contexts: HashMap<String, NamedContext> = HashMap::new();
    while !wave.is_empty() {
        let fresh = reach(stages, &mut origins, wave, request, &mut contexts)?;
        wave = Vec::new();
        for id in fresh {
            let triggers = triggers(stages, id, &origins);
            let mut steps = Vec::with_capacity(triggers.len());
            for trigger in triggers {
                let step = read_trigger(stages, id, &trigger)?;
                wave.extend(step.sources.iter().flatten());
                steps.push(step);
            }
            if !steps.is_empty() {
                steps.append(&mut stages.list[id].steps);
                stages.list[id].steps = steps;
            }
        }
        origins.resize(stages.list.len(), None);
    }
    Ok(origins)
}

/// Settles the origins of all stages that `wave` needs and that are not settled yet, and names
/// them in order.
fn reach(
    stages: &Stages,
    origins: &mut [Option<Origin>],
    wave: Vec<StageId>,
    request: &mut Request<'_, '_>,
    contexts: &mut HashMap<String, NamedContext>,
) -> Result<Vec<StageId>, Diagnostics> {
    let mut errors = Diagnostics::new();
    let mut fresh = Vec::new();
    let mut waiting: Vec<(StageId, ImageRequest)> = Vec::new();
    let mut seen = vec![false; stages.list.len()];
    let mut stack = wave;
    while let Some(id) = stack.pop() {
        if origins[id].is_some() || std::mem::replace(&mut seen[id], true) {
            continue;
        }
        fresh.push(id);
        let stage = &stages.list[id];
        match origin_of(stages, stage, request, contexts) {
            Err(error) => errors.push(error),
            Ok(Pending::Known(origin)) => {
                if let Origin::Stage(base) = origin {
                    stack.push(base);
                }
                origins[id] = Some(origin);
            }
            Ok(Pending::Image(image)) => waiting.push((id, image)),
        }
        stack.extend(stage.dependencies().map(|(source, _)| source));
    }
    fresh.sort_unstable();
    waiting.sort_unstable_by_key(|(id, _)| *id);
    let mut requests: Vec<ImageRequest> = Vec::new();
    let mut places: HashMap<&ImageRequest, usize> = HashMap::new();
    for (_, image) in &waiting {
        places.entry(image).or_insert_with(|| {
            requests.push(image.clone());
            requests.len() - 1
        });
    }
    let mut answers: Vec<Result<Arc<ResolvedImage>, Option<ResolveError>>> = request
        .pins
        .resolver
        .images(&requests)
        .into_iter()
        .map(|answer| answer.map(Arc::new).map_err(Some))
        .collect();
    for (id, image) in &waiting {
        let answer = places.get(image).and_then(|place| answers.get_mut(*place));
        let found = match answer {
            Some(Ok(found)) => Arc::clone(found),
            Some(Err(error)) => {
                // Once for each image is enough.
                if let Some(error) = error.take().filter(|_| errors.len() < MAX_ERRORS) {
                    errors.push(image_error(stages, &stages.list[*id], error));
                }
                continue;
            }
            None => {
                let error = ResolveError::new("the resolver gave no answer");
                errors.push(image_error(stages, &stages.list[*id], error));
                continue;
            }
        };
        origins[*id] = Some(Origin::Image {
            image: found,
            platform: image.platform.clone(),
            location: image.location.clone(),
        });
    }
    errors.or_ok(fresh)
}

/// An origin, or what must be asked to know it.
enum Pending {
    Known(Origin),
    Image(ImageRequest),
}

fn origin_of(
    stages: &Stages,
    stage: &Stage,
    request: &mut Request<'_, '_>,
    contexts: &mut HashMap<String, NamedContext>,
) -> Result<Pending, Diagnostic> {
    let platform = stage.platform.as_ref().unwrap_or(request.platform);
    let image = |reference: String, location| {
        Pending::Image(ImageRequest {
            reference,
            platform: platform.clone(),
            location,
            pull: request.options.pull,
        })
    };
    let name = match &stage.base {
        Base::Scratch => return Ok(Pending::Known(Origin::Scratch)),
        Base::Stage(base) => return Ok(Pending::Known(Origin::Stage(*base))),
        Base::Image(reference) => {
            return Ok(image(reference.clone(), ImageLocation::StoreOrRegistry));
        }
        Base::Context(name) => name,
    };
    let fail = |message: String| {
        Diagnostic::error("bad-context", format!("build context {name:?}: {message}"))
            .at(&stage.source, stage.span)
    };
    let context = match contexts.get(name) {
        Some(known) => known.clone(),
        None => {
            let found = request.pins.resolver.named_context(name).map_err(|error| {
                let wrong = fail(error.message);
                error.help.into_iter().fold(wrong, Diagnostic::help)
            })?;
            contexts.insert(name.clone(), found.clone());
            found
        }
    };
    Ok(match context {
        NamedContext::Local => Pending::Known(Origin::Local(name.clone())),
        NamedContext::Image(reference) if reference == "scratch" => Pending::Known(Origin::Scratch),
        NamedContext::Image(reference) => image(
            reference::normalise(&reference).map_err(|error| fail(error.to_string()))?,
            ImageLocation::StoreOrRegistry,
        ),
        NamedContext::OciLayout(reference) => {
            image(reference, ImageLocation::OciLayout(name.clone()))
        }
        NamedContext::Stage(target) => match stages.find(&target) {
            Some(id) => Pending::Known(Origin::Stage(id)),
            None => return Err(fail(format!("there is no stage {target:?}"))),
        },
        NamedContext::Git(address) => {
            let git = match git_ref::parse_context(&address) {
                Some(Ok(git)) => git,
                Some(Err(error)) => return Err(fail(error.to_string())),
                None => return Err(fail(format!("{address:?} is no git repository"))),
            };
            let asked = GitRequest {
                url: git.remote.clone(),
                reference: git.reference.clone(),
                checksum: git.checksum.clone(),
            };
            let commit = request.pins.commit(&asked).map_err(|error| fail(error.message))?;
            Pending::Known(Origin::Git { git, commit })
        }
    })
}

fn image_error(stages: &Stages, stage: &Stage, error: ResolveError) -> Diagnostic {
    let written = &stage.base_text;
    let at = stage.source.slice(stage.span);
    let mut wrong = Diagnostic::error("image", format!("{written}: {}", error.message)).at(
        &stage.source,
        // The whole FROM line would draw the eye away from the name.
        match at.find(written.as_str()) {
            Some(from) => {
                Span::new(stage.span.start + from, stage.span.start + from + written.len())
            }
            None => stage.span,
        },
    );
    wrong.help.extend(error.help);
    match nearest(written, stages.names().chain(COMMON_IMAGES)) {
        Some(near) => wrong.help(format!("did you mean {near:?}?")),
        None => wrong,
    }
}

/// The triggers that fire in a stage: those of its base image, or those that its base stage
/// declares itself.
fn triggers(stages: &Stages, id: StageId, origins: &[Option<Origin>]) -> Vec<String> {
    let stage = &stages.list[id];
    if !stage.is_declared || stage.is_replaced {
        return Vec::new();
    }
    match &origins[id] {
        Some(Origin::Image { image, .. }) => image.config.config.on_build.clone(),
        Some(Origin::Stage(base)) => stages.list[*base]
            .steps
            .iter()
            .filter_map(|step| match &step.instruction.command {
                Command::Onbuild(trigger) if !step.is_trigger => Some(trigger.expression.clone()),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    }
}

fn read_trigger(stages: &mut Stages, id: StageId, text: &str) -> Result<Step, Diagnostic> {
    let (label, source, span) = {
        let stage = &stages.list[id];
        (stage.base_text.clone(), Arc::clone(&stage.source), stage.span)
    };
    let explain = |wrong: Diagnostic| {
        Diagnostic::error("bad-trigger", format!("ONBUILD trigger {text:?}: {}", wrong.message))
            .at(&source, span)
            .note(format!("it comes from the base {label:?}"))
    };
    let name = format!("ONBUILD of {label}");
    let trigger = instruction::parse_trigger(&name, text).map_err(|all| {
        explain(
            all.into_iter()
                .next()
                .unwrap_or_else(|| Diagnostic::error("bad-trigger", "the trigger cannot be read")),
        )
    })?;
    stages.step(&Arc::new(trigger), true).map_err(explain)
}
