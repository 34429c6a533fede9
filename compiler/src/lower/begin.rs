//! How a stage begins: the state that its base leaves it.

use indexmap::IndexMap;
use rbc_ir::{GitSource, History, ImageSource, Op, Platform, Source};

use super::{Lowering, Root, State, bases::Origin, step_name::Counter};
use crate::{
    diagnostic::Diagnostic,
    image_config::Settings,
    lint::Rule,
    stage::{Stage, StageId},
};

impl Lowering<'_, '_> {
    /// The state before the first instruction, the history that comes with it, and the stage whose
    /// history precedes that.
    pub(super) fn begin(
        &mut self,
        stage: &Stage,
        id: StageId,
        counter: &mut Counter,
    ) -> Result<(State, Vec<History>, Option<StageId>), Diagnostic> {
        let fresh = |root, settings, platform: &Platform, image_platform: &Platform| State {
            root,
            settings,
            env: IndexMap::new(),
            build_args: IndexMap::new(),
            platform: platform.clone(),
            image_platform: image_platform.clone(),
            workdir_is_set: false,
        };
        let platform = stage.platform.as_ref().unwrap_or(self.job.platform);
        let origin = self.origins[id].clone().unwrap_or(Origin::Scratch);
        let (state, history) = match origin {
            Origin::Stage(base) => {
                let Some(built) = &self.built[base] else {
                    return Err(Diagnostic::error(
                        "unknown-stage",
                        format!("{:?} needs a stage that is not before it", stage.label),
                    )
                    .at(&stage.source, stage.span));
                };
                let mut state = built.state.clone();
                state.settings.on_build = Vec::new();
                if let Root::Local(name) = &state.root {
                    state.root = Root::Node(self.whole_context(name, stage)?);
                }
                return Ok((state, Vec::new(), Some(base)));
            }
            Origin::Scratch => {
                let target = self.job.platform;
                let mut settings = Settings::empty();
                if target.os == "windows" {
                    // Where programs are differs from one Windows to another.
                    settings.env.clear();
                }
                (fresh(Root::Empty, settings, target, target), Vec::new())
            }
            Origin::Local(name) => {
                let root = if stage.is_declared && !stage.is_replaced {
                    Root::Node(self.whole_context(&name, stage)?)
                } else {
                    Root::Local(name)
                };
                (fresh(root, Settings::empty(), platform, platform), Vec::new())
            }
            Origin::Git { git, commit } => {
                let source = Source::Git(GitSource {
                    url: git.remote.clone(),
                    reference: git.reference.clone(),
                    commit,
                    subdir: git.subdir.clone(),
                    keep_git_dir: git.keep_git_dir.unwrap_or(false),
                    submodules: git.submodules.unwrap_or(true),
                });
                let name = format!("[internal] load git source {}", git.remote);
                let meta = self.meta_of(stage, name);
                let root = self.add(Op::Source(source), Vec::new(), None, meta)?;
                (fresh(Root::Node(root), Settings::empty(), platform, platform), Vec::new())
            }
            Origin::Image { image, platform, location } => {
                let source = Source::Image(ImageSource {
                    reference: image.reference.clone(),
                    manifest: image.manifest,
                    location,
                });
                let shown = if image.reference.contains('@') {
                    format!("FROM {}", image.reference)
                } else {
                    format!("FROM {}@{}", image.reference, image.manifest)
                };
                let name = counter.next(&shown, false);
                let meta = self.meta_of(stage, name);
                let root =
                    self.add(Op::Source(source), Vec::new(), Some(platform.clone()), meta)?;
                self.check_image_platform(stage, &platform, &image.platform);
                let settings = Settings::inherit(&image.config);
                let history = image.config.history.clone();
                (fresh(Root::Node(root), settings, &platform, &image.platform), history)
            }
        };
        Ok((state, history, None))
    }

    fn check_image_platform(&mut self, stage: &Stage, wanted: &Platform, is: &Platform) {
        if wanted.os != is.os || wanted.architecture != is.architecture {
            self.lint.report_at(
                Rule::InvalidBaseImagePlatform,
                &stage.source,
                stage.span,
                format!(
                    "Base image {} was pulled with platform \"{is}\", expected \"{wanted}\" for \
                     current build",
                    stage.base_text
                ),
                "use an image for that platform, or set --platform in FROM on purpose",
            );
        }
    }
}
