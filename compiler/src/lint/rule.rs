//! The rules: names, what they are about, where they are explained.

/// A build check. Those of Docker have Docker's names and explanations
/// (docs.docker.com/reference/build-checks); the others are rbc's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// A stage's name has capital letters.
    StageNameCasing,
    /// `FROM` and `AS` differ in letter case.
    FromAsCasing,
    /// A continuation has an empty line.
    NoEmptyContinuation,
    /// A keyword's case is not that of most keywords.
    ConsistentInstructionCasing,
    /// Two stages have one name.
    DuplicateStageName,
    /// A stage has a name that means something else.
    ReservedStageName,
    /// CMD or ENTRYPOINT in shell form.
    JsonArgsRecommended,
    /// MAINTAINER is used.
    MaintainerDeprecated,
    /// FROM uses a variable that no ARG declares.
    UndefinedArgInFrom,
    /// The first WORKDIR is relative.
    WorkdirRelativePath,
    /// A variable is used that nothing sets.
    UndefinedVar,
    /// An instruction is lost to a later one.
    MultipleInstructionsDisallowed,
    /// `ENV name value`.
    LegacyKeyValueFormat,
    /// The base image is for another platform.
    InvalidBaseImagePlatform,
    /// `--platform=$TARGETPLATFORM`.
    RedundantTargetPlatform,
    /// A variable's name says that it holds a secret.
    SecretsUsedInArgOrEnv,
    /// Without build arguments, FROM names no image.
    InvalidDefaultArgInFrom,
    /// `--platform` is constant.
    FromPlatformFlagConstDisallowed,
    /// The ignore file hides what is copied.
    CopyIgnoredFile,
    /// A comment looks like a description and is none.
    InvalidDefinitionDescription,
    /// EXPOSE names a protocol in capital letters.
    ExposeProtoCasing,
    /// EXPOSE says more than a port.
    ExposeInvalidFormat,
    /// No other stage uses a stage, and nothing says that it is a target.
    StageNeverUsed,
    /// A variable's value looks like a secret.
    SecretValueInArgOrEnv,
    /// Different base images write to one cache.
    CacheMountSharedByBases,
    /// All of the context is copied before packages are installed.
    ContextCopiedBeforeInstall,
}

/// Who made a rule, and so what it may do to a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Docker; counts for `error=true`.
    Docker,
    /// Docker; looked for only if `experimental=` names it.
    DockerExperimental,
    /// rbc. A Dockerfile that Docker builds must not fail by it, so it counts for `error=true`
    /// only if `experimental=` names it.
    Own,
}

impl Rule {
    /// All rules: Docker's in the order of Docker's list, then rbc's own.
    pub const ALL: [Self; 26] = [
        Self::StageNameCasing,
        Self::FromAsCasing,
        Self::NoEmptyContinuation,
        Self::ConsistentInstructionCasing,
        Self::DuplicateStageName,
        Self::ReservedStageName,
        Self::JsonArgsRecommended,
        Self::MaintainerDeprecated,
        Self::UndefinedArgInFrom,
        Self::WorkdirRelativePath,
        Self::UndefinedVar,
        Self::MultipleInstructionsDisallowed,
        Self::LegacyKeyValueFormat,
        Self::InvalidBaseImagePlatform,
        Self::RedundantTargetPlatform,
        Self::SecretsUsedInArgOrEnv,
        Self::InvalidDefaultArgInFrom,
        Self::FromPlatformFlagConstDisallowed,
        Self::CopyIgnoredFile,
        Self::InvalidDefinitionDescription,
        Self::ExposeProtoCasing,
        Self::ExposeInvalidFormat,
        Self::StageNeverUsed,
        Self::SecretValueInArgOrEnv,
        Self::CacheMountSharedByBases,
        Self::ContextCopiedBeforeInstall,
    ];

    /// The name by which `# check=skip=NAME` knows it.
    pub fn name(self) -> &'static str {
        self.facts().0
    }

    /// What it is about, in a sentence.
    pub fn description(self) -> &'static str {
        self.facts().1
    }

    /// The page that explains a rule of Docker's, if there is one.
    pub fn url(self) -> Option<String> {
        if self.origin() == Origin::Own || self == Self::InvalidBaseImagePlatform {
            return None;
        }
        let mut slug = String::new();
        let name: Vec<char> = self.name().chars().collect();
        for (at, char) in name.iter().enumerate() {
            // A new word starts where the next letter is small again: JSONArgs is json-args.
            let starts = char.is_ascii_uppercase()
                && (name[at.saturating_sub(1)].is_ascii_lowercase()
                    || name.get(at + 1).is_some_and(char::is_ascii_lowercase));
            if at > 0 && starts {
                slug.push('-');
            }
            slug.push(char.to_ascii_lowercase());
        }
        Some(format!("https://docs.docker.com/go/dockerfile/rule/{slug}/"))
    }

    /// Who made it.
    pub fn origin(self) -> Origin {
        match self {
            Self::InvalidDefinitionDescription => Origin::DockerExperimental,
            Self::StageNeverUsed
            | Self::SecretValueInArgOrEnv
            | Self::CacheMountSharedByBases
            | Self::ContextCopiedBeforeInstall => Origin::Own,
            _ => Origin::Docker,
        }
    }

    /// The rule of that name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rule| rule.name() == name)
    }

    fn facts(self) -> (&'static str, &'static str) {
        match self {
            Self::StageNameCasing => ("StageNameCasing", "Stage names should be lowercase"),
            Self::FromAsCasing => {
                ("FromAsCasing", "The 'as' keyword should match the case of the 'from' keyword")
            }
            Self::NoEmptyContinuation => (
                "NoEmptyContinuation",
                "Empty continuation lines will become errors in a future release",
            ),
            Self::ConsistentInstructionCasing => (
                "ConsistentInstructionCasing",
                "All commands within the Dockerfile should use the same casing (either upper or \
                 lower)",
            ),
            Self::DuplicateStageName => ("DuplicateStageName", "Stage names should be unique"),
            Self::ReservedStageName => {
                ("ReservedStageName", "Reserved words should not be used as stage names")
            }
            Self::JsonArgsRecommended => (
                "JSONArgsRecommended",
                "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior \
                 related to OS signals",
            ),
            Self::MaintainerDeprecated => (
                "MaintainerDeprecated",
                "The MAINTAINER instruction is deprecated, use a label instead to define an image \
                 author",
            ),
            Self::UndefinedArgInFrom => {
                ("UndefinedArgInFrom", "FROM command must use declared ARGs")
            }
            Self::WorkdirRelativePath => (
                "WorkdirRelativePath",
                "Relative workdir without an absolute workdir declared within the build can have \
                 unexpected results if the base image changes",
            ),
            Self::UndefinedVar => ("UndefinedVar", "Variables should be defined before their use"),
            Self::MultipleInstructionsDisallowed => (
                "MultipleInstructionsDisallowed",
                "Multiple instructions of the same type should not be used in the same stage",
            ),
            Self::LegacyKeyValueFormat => (
                "LegacyKeyValueFormat",
                "Legacy key/value format with whitespace separator should not be used",
            ),
            Self::InvalidBaseImagePlatform => (
                "InvalidBaseImagePlatform",
                "Base image platform does not match expected target platform",
            ),
            Self::RedundantTargetPlatform => (
                "RedundantTargetPlatform",
                "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is \
                 the default behavior",
            ),
            Self::SecretsUsedInArgOrEnv => (
                "SecretsUsedInArgOrEnv",
                "Sensitive data should not be used in the ARG or ENV commands",
            ),
            Self::InvalidDefaultArgInFrom => (
                "InvalidDefaultArgInFrom",
                "Default value for global ARG results in an empty or invalid base image name",
            ),
            Self::FromPlatformFlagConstDisallowed => (
                "FromPlatformFlagConstDisallowed",
                "FROM --platform flag should not use a constant value",
            ),
            Self::CopyIgnoredFile => {
                ("CopyIgnoredFile", "Attempting to Copy file that is excluded by .dockerignore")
            }
            Self::InvalidDefinitionDescription => (
                "InvalidDefinitionDescription",
                "Comment for build stage or argument should follow the format: `# <arg/stage \
                 name> <description>`. If this is not intended to be a description comment, add \
                 an empty line or comment between the instruction and the comment.",
            ),
            Self::ExposeProtoCasing => {
                ("ExposeProtoCasing", "Protocol in EXPOSE instruction should be lowercase")
            }
            Self::ExposeInvalidFormat => (
                "ExposeInvalidFormat",
                "IP address and host-port mapping should not be used in EXPOSE instruction. This \
                 will become an error in a future release",
            ),
            Self::StageNeverUsed => {
                ("StageNeverUsed", "A stage that nothing uses should be removed or described")
            }
            Self::SecretValueInArgOrEnv => (
                "SecretValueInArgOrEnv",
                "Values of ARG and ENV are readable in the image's history and config",
            ),
            Self::CacheMountSharedByBases => (
                "CacheMountSharedByBases",
                "Cache mounts without an id are shared by all stages that use the same target",
            ),
            Self::ContextCopiedBeforeInstall => (
                "ContextCopiedBeforeInstall",
                "Packages are installed anew whenever any file of the build context changes",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Rule;

    #[test]
    fn names_and_pages() {
        for rule in Rule::ALL {
            assert_eq!(Rule::by_name(rule.name()), Some(rule));
        }
        let url = |rule: Rule| rule.url().unwrap_or_default();
        assert!(url(Rule::JsonArgsRecommended).ends_with("/rule/json-args-recommended/"));
        assert!(url(Rule::UndefinedArgInFrom).ends_with("/rule/undefined-arg-in-from/"));
        assert_eq!(Rule::StageNeverUsed.url(), None);
    }
}
