//! Which rules count: `skip=RULE,…;error=true;experimental=RULE,…`, of the `check` directive, the
//! build argument `BUILDKIT_DOCKERFILE_CHECK` or a comment above an instruction.

use std::collections::BTreeSet;

use super::rule::{Origin, Rule};
use crate::syntax::Comment;

/// Names of rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Rules {
    all: bool,
    names: BTreeSet<String>,
}

impl Rules {
    fn read(text: &str) -> Self {
        match text.trim() {
            "all" => Self { all: true, names: BTreeSet::new() },
            names => Self {
                all: false,
                names: names.split(',').map(|name| name.trim().to_owned()).collect(),
            },
        }
    }

    fn has(&self, rule: Rule) -> bool {
        self.all || self.names.contains(rule.name())
    }
}

/// The settings of the checks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Config {
    skip: Rules,
    experimental: Rules,
    fails_build: bool,
}

/// Why a text is no settings.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum ConfigError {
    /// Not `name=value`, or an unknown name.
    #[error("invalid check option {0:?}")]
    Option(String),
    /// `error=` with something that is no truth value.
    #[error("failed to parse check option {0:?}: want true or false")]
    Truth(String),
}

impl Config {
    /// Reads settings. As in BuildKit the third is the rest of the text, whatever is in it.
    pub(super) fn read(text: &str) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        let text = text.trim();
        if text.is_empty() {
            return Ok(config);
        }
        for part in text.splitn(3, ';') {
            let Some((name, value)) = part.split_once('=') else {
                return Err(ConfigError::Option(part.to_owned()));
            };
            match name.trim() {
                "skip" => config.skip = Rules::read(value),
                "experimental" => config.experimental = Rules::read(value),
                "error" => {
                    config.fails_build = match value.trim() {
                        "1" | "t" | "T" | "TRUE" | "true" | "True" => true,
                        "0" | "f" | "F" | "FALSE" | "false" | "False" => false,
                        _ => return Err(ConfigError::Truth(part.to_owned())),
                    };
                }
                other => return Err(ConfigError::Option(other.to_owned())),
            }
        }
        Ok(config)
    }

    /// Whether a rule is looked at, also by the comments above an instruction: the first of them
    /// with readable settings counts.
    pub(super) fn allows(&self, rule: Rule, comments: &[Comment]) -> bool {
        let above = comments.iter().find_map(|comment| {
            let (name, value) = comment.text.split_once('=')?;
            name.trim().eq_ignore_ascii_case("check").then(|| {
                let value = value.trim().split(' ').next().unwrap_or_default();
                Self::read(value).unwrap_or_default()
            })
        });
        let either = |pick: fn(&Self) -> &Rules| {
            pick(self).has(rule) || above.as_ref().is_some_and(|config| pick(config).has(rule))
        };
        match rule.origin() {
            Origin::DockerExperimental => either(|config| &config.experimental),
            Origin::Docker | Origin::Own => !either(|config| &config.skip),
        }
    }

    /// Whether a finding of a rule fails the build.
    pub(super) fn fails_build(&self, rule: Rule) -> bool {
        self.fails_build && (rule.origin() != Origin::Own || self.experimental.has(rule))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::syntax::Span;

    #[test]
    fn settings() {
        let config = Config::read("skip=UndefinedVar, StageNameCasing;error=T").unwrap();
        assert!(!config.allows(Rule::UndefinedVar, &[]));
        assert!(!config.allows(Rule::StageNameCasing, &[]));
        assert!(config.allows(Rule::FromAsCasing, &[]));
        assert!(config.fails_build(Rule::FromAsCasing));
        assert!(!config.fails_build(Rule::StageNeverUsed), "Docker does not know it");
        assert!(!Config::read("skip=all").unwrap().allows(Rule::UndefinedVar, &[]));
        assert!(!Config::default().allows(Rule::InvalidDefinitionDescription, &[]));
        let config = Config::read("experimental=all").unwrap();
        assert!(config.allows(Rule::InvalidDefinitionDescription, &[]));
    }

    #[test]
    fn settings_that_are_wrong() {
        assert_eq!(Config::read("skip"), Err(ConfigError::Option("skip".into())));
        assert_eq!(Config::read("skip=a;b=c"), Err(ConfigError::Option("b".into())));
        assert_eq!(Config::read("error=maybe"), Err(ConfigError::Truth("error=maybe".into())));
        assert!(Config::read("skip=a;error=true;experimental=x;y").is_ok());
    }

    #[test]
    fn a_comment_skips_for_one_instruction() {
        let comment = |text: &str| [Comment { text: text.into(), span: Span::default() }];
        let config = Config::default();
        assert!(!config.allows(Rule::UndefinedVar, &comment("check=skip=UndefinedVar why not")));
        assert!(config.allows(Rule::UndefinedVar, &comment("check=skip=Other")));
        assert!(config.allows(Rule::UndefinedVar, &comment("check=nonsense")));
    }
}
