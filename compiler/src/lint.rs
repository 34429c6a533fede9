//! Build checks: what works but is probably not meant. The rules and their names are Docker's
//! (docs.docker.com/reference/build-checks); `# check=skip=…` turns them off.

use std::{collections::BTreeSet, sync::Arc};

use rbc_ir::{Platform, pattern::PatternMatcher};

use crate::{
    diagnostic::Diagnostic,
    instruction::{Command, CommandLine, Instruction},
    shellword::Expansion,
    stage::Globals,
    suggest::nearest,
    syntax::{SourceFile, Span, Word},
};

/// A build check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Rule {
    StageNameCasing,
    FromAsCasing,
    ConsistentInstructionCasing,
    DuplicateStageName,
    ReservedStageName,
    JsonArgsRecommended,
    MaintainerDeprecated,
    UndefinedArgInFrom,
    WorkdirRelativePath,
    UndefinedVar,
    MultipleInstructionsDisallowed,
    LegacyKeyValueFormat,
    InvalidBaseImagePlatform,
    RedundantTargetPlatform,
    SecretsUsedInArgOrEnv,
    FromPlatformFlagConstDisallowed,
    CopyIgnoredFile,
    ExposeProtoCasing,
    ExposeInvalidFormat,
}

impl Rule {
    /// Docker's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::StageNameCasing => "StageNameCasing",
            Self::FromAsCasing => "FromAsCasing",
            Self::ConsistentInstructionCasing => "ConsistentInstructionCasing",
            Self::DuplicateStageName => "DuplicateStageName",
            Self::ReservedStageName => "ReservedStageName",
            Self::JsonArgsRecommended => "JSONArgsRecommended",
            Self::MaintainerDeprecated => "MaintainerDeprecated",
            Self::UndefinedArgInFrom => "UndefinedArgInFrom",
            Self::WorkdirRelativePath => "WorkdirRelativePath",
            Self::UndefinedVar => "UndefinedVar",
            Self::MultipleInstructionsDisallowed => "MultipleInstructionsDisallowed",
            Self::LegacyKeyValueFormat => "LegacyKeyValueFormat",
            Self::InvalidBaseImagePlatform => "InvalidBaseImagePlatform",
            Self::RedundantTargetPlatform => "RedundantTargetPlatform",
            Self::SecretsUsedInArgOrEnv => "SecretsUsedInArgOrEnv",
            Self::FromPlatformFlagConstDisallowed => "FromPlatformFlagConstDisallowed",
            Self::CopyIgnoredFile => "CopyIgnoredFile",
            Self::ExposeProtoCasing => "ExposeProtoCasing",
            Self::ExposeInvalidFormat => "ExposeInvalidFormat",
        }
    }
}

/// Collects the findings of one compilation.
#[derive(Debug, Default)]
pub(crate) struct Linter {
    skip_all: bool,
    skip: BTreeSet<String>,
    silent: bool,
    /// The ignore file of the build context, if it is simple enough to judge by: no exceptions.
    ignore: Option<PatternMatcher>,
    ignores_all: bool,
    /// Whether `# check=error=true` makes findings fail the build.
    pub fails_build: bool,
    /// What was found, in order.
    pub found: Vec<Diagnostic>,
}

impl Linter {
    /// Reads the value of the `check` directive: `skip=RULE,RULE;error=true`.
    /// `ignore` are the patterns of the build context's ignore file.
    pub fn new(check: Option<&str>, ignore: &[String]) -> Self {
        let mut linter = Self::default();
        if !ignore.is_empty() && !ignore.iter().any(|pattern| pattern.starts_with('!')) {
            linter.ignore = PatternMatcher::new(ignore).ok();
            linter.ignores_all =
                ignore.iter().any(|pattern| matches!(pattern.as_str(), "*" | "**" | "**/*"));
        }
        for part in check.unwrap_or("").split(';') {
            match part.trim().split_once('=').map(|(key, value)| (key.trim(), value.trim())) {
                Some(("skip", "all")) => linter.skip_all = true,
                Some(("skip", rules)) => {
                    linter.skip.extend(rules.split(',').map(|rule| rule.trim().to_owned()));
                }
                Some(("error", value)) => linter.fails_build = value == "true",
                _ => {}
            }
        }
        linter
    }

    /// One that finds nothing, for compiling the same text again for another platform.
    pub fn silent() -> Self {
        Self { silent: true, ..Self::default() }
    }

    /// A finding about a whole instruction.
    pub fn report(&mut self, rule: Rule, instruction: &Instruction, message: String) {
        self.report_at(rule, &instruction.source, instruction.span, message);
    }

    /// A finding at a place.
    pub fn report_at(&mut self, rule: Rule, source: &Arc<SourceFile>, span: Span, message: String) {
        if self.silent || self.skip_all || self.skip.contains(rule.name()) {
            return;
        }
        let finding = Diagnostic::warning(rule.name(), message).at(source, span);
        if self.found.last() != Some(&finding) {
            self.found.push(finding);
        }
    }

    /// The checks that need no variables.
    pub fn check_text(&mut self, instructions: &[Arc<Instruction>]) {
        let lower = |word: &str| word.chars().all(|c| c.is_lowercase());
        let upper = |word: &str| word.chars().all(|c| c.is_uppercase());
        let keywords = || instructions.iter().map(|instruction| instruction.keyword.text.as_str());
        let mostly_lower =
            keywords().filter(|k| lower(k)).count() > keywords().filter(|k| upper(k)).count();
        let mut in_stage = false;
        for instruction in instructions {
            let keyword = &instruction.keyword;
            in_stage |= matches!(instruction.command, Command::From(_));
            let (fits, casing) = if mostly_lower {
                (lower(&keyword.text), "lowercase")
            } else {
                (upper(&keyword.text), "uppercase")
            };
            if in_stage && !fits {
                self.report_at(
                    Rule::ConsistentInstructionCasing,
                    &instruction.source,
                    keyword.span,
                    format!(
                        "Command '{}' should match the case of the command majority ({casing})",
                        keyword.text
                    ),
                );
            }
            match &instruction.command {
                Command::From(from) => self.check_from(instruction, from.name.as_ref()),
                Command::Maintainer(_) => self.report(
                    Rule::MaintainerDeprecated,
                    instruction,
                    "Maintainer instruction is deprecated in favor of using label".to_owned(),
                ),
                Command::Env(pairs) | Command::Label(pairs) => {
                    for pair in pairs.iter().filter(|pair| pair.legacy) {
                        let name = keyword.text.to_uppercase();
                        self.report_at(
                            Rule::LegacyKeyValueFormat,
                            &instruction.source,
                            pair.key.span,
                            format!(
                                "\"{name} key=value\" should be used instead of legacy \"{name} \
                                 key value\" format"
                            ),
                        );
                    }
                }
                _ => {}
            }
        }
    }

    fn check_from(&mut self, instruction: &Instruction, name: Option<&Word>) {
        let Some(name) = name else { return };
        let written = instruction.source.slice(name.span);
        if written != written.to_lowercase() {
            self.report_at(
                Rule::StageNameCasing,
                &instruction.source,
                name.span,
                format!("Stage name '{written}' should be lowercase"),
            );
        }
        if matches!(name.text.as_str(), "scratch" | "context") {
            self.report_at(
                Rule::ReservedStageName,
                &instruction.source,
                name.span,
                format!(
                    "Stage name should not use the same name as reserved stage {:?}",
                    name.text
                ),
            );
        }
        let before = instruction.source.text().get(instruction.span.start..name.span.start);
        let keyword = &instruction.keyword.text;
        if let Some(word) = before.and_then(|text| text.split_whitespace().next_back()) {
            let from_is_lower = *keyword == keyword.to_lowercase();
            let as_is_lower = word == word.to_lowercase();
            if word.eq_ignore_ascii_case("as") && from_is_lower != as_is_lower {
                self.report(
                    Rule::FromAsCasing,
                    instruction,
                    format!("'{word}' and '{keyword}' keywords' casing do not match"),
                );
            }
        }
    }

    /// Variables of FROM that no ARG declares.
    pub fn undeclared_in_from(
        &mut self,
        instruction: &Instruction,
        unset: &[String],
        globals: &Globals,
    ) {
        for name in unset {
            if globals.declared.contains(name) || globals.values.contains_key(name) {
                continue;
            }
            let names = globals.values.keys().chain(&globals.declared).map(String::as_str);
            let near = nearest(name, names)
                .map_or(String::new(), |near| format!(" (did you mean {near}?)"));
            self.report(
                Rule::UndefinedArgInFrom,
                instruction,
                format!("FROM argument '{name}' is not declared{near}"),
            );
        }
    }

    /// `--platform` values that say nothing or too much.
    pub fn platform_of_from(
        &mut self,
        instruction: &Instruction,
        word: &Word,
        expanded: &Expansion,
        platform: &Platform,
        globals: &Globals,
    ) {
        if expanded.used.is_empty() && expanded.unset.is_empty() {
            let Command::From(from) = &instruction.command else { return };
            let name = from.name.as_ref().map_or("", |name| name.text.as_str());
            if !name.contains(&platform.os) && !name.contains(&platform.architecture) {
                self.report_at(
                    Rule::FromPlatformFlagConstDisallowed,
                    &instruction.source,
                    word.span,
                    format!(
                        "FROM --platform flag should not use constant value {:?}",
                        expanded.text
                    ),
                );
            }
        } else if expanded.unset.is_empty()
            && matches!(&expanded.used[..], [only] if only == "TARGETPLATFORM")
            && globals.values.get("TARGETPLATFORM") == Some(&expanded.text)
        {
            self.report_at(
                Rule::RedundantTargetPlatform,
                &instruction.source,
                word.span,
                format!(
                    "Setting platform to predefined {} in FROM is redundant as this is the \
                     default behavior",
                    word.text
                ),
            );
        }
    }

    /// A variable of a stage that nothing sets or declares.
    pub fn undefined_variable<'a>(
        &mut self,
        instruction: &Instruction,
        span: Span,
        name: &str,
        known: impl Iterator<Item = &'a str>,
    ) {
        if name.starts_with("BUILDKIT_SBOM_SCAN_") {
            return;
        }
        // Among more names than anyone writes, looking for a near one would take too long.
        let near = nearest(name, known.take(1000))
            .map_or(String::new(), |near| format!(" (did you mean ${near}?)"));
        self.report_at(
            Rule::UndefinedVar,
            &instruction.source,
            span,
            format!("Usage of undefined variable '${name}'{near}"),
        );
    }

    /// Names of variables that look like they hold a secret.
    pub fn secret_name(
        &mut self,
        instruction: &Instruction,
        keyword: &str,
        name: &str,
        span: Span,
    ) {
        const DENIED: [&str; 10] = [
            "apikey",
            "auth",
            "credential",
            "credentials",
            "key",
            "password",
            "pword",
            "passwd",
            "secret",
            "token",
        ];
        const ALLOWED: [&str; 3] = ["public", "file", "version"];
        let lower = name.to_lowercase();
        let has = |words: &[&str]| lower.split('_').any(|part| words.contains(&part));
        if has(&DENIED) && !has(&ALLOWED) {
            self.report_at(
                Rule::SecretsUsedInArgOrEnv,
                &instruction.source,
                span,
                format!(
                    "Do not use ARG or ENV instructions for sensitive data ({keyword} {name:?})"
                ),
            );
        }
    }

    /// CMD and ENTRYPOINT in shell form where the stage sets no SHELL.
    pub fn shell_form(&mut self, instruction: &Instruction, command: &CommandLine) {
        if matches!(command, CommandLine::Shell(_)) {
            self.report(
                Rule::JsonArgsRecommended,
                instruction,
                format!(
                    "JSON arguments recommended for {} to prevent unintended behavior related to \
                     OS signals",
                    instruction.keyword.text.to_uppercase()
                ),
            );
        }
    }

    /// A port of EXPOSE that says more than a port.
    pub fn exposed(&mut self, instruction: &Instruction, word: &Word, port: &str) {
        let protocol = port.rsplit_once('/').map_or("", |(_, protocol)| protocol);
        let (rule, message) = if port.contains(':') {
            let message = format!(
                "EXPOSE instruction should not define an IP address or host-port mapping, found \
                 '{port}'"
            );
            (Rule::ExposeInvalidFormat, message)
        } else if protocol != protocol.to_lowercase() {
            let message =
                format!("Defined protocol '{port}' in EXPOSE instruction should be lowercase");
            (Rule::ExposeProtoCasing, message)
        } else {
            return;
        };
        self.report_at(rule, &instruction.source, word.span, message);
    }

    /// A source of COPY or ADD that the ignore file hides. The root counts as hidden only if all
    /// of it is.
    pub fn ignored_source(&mut self, instruction: &Instruction, word: &Word, source: &str) {
        let Some(ignore) = &self.ignore else { return };
        let source = source.replace("/./", "/");
        let hidden =
            if source.is_empty() { self.ignores_all } else { ignore.matches_or_parent(&source) };
        if hidden {
            let keyword =
                if matches!(instruction.command, Command::Add(_)) { "Add" } else { "Copy" };
            self.report_at(
                Rule::CopyIgnoredFile,
                &instruction.source,
                word.span,
                format!(
                    "Attempting to {keyword} file {:?} that is excluded by .dockerignore",
                    if source.is_empty() { "." } else { source.as_str() }
                ),
            );
        }
    }

    /// An instruction of which only the last of a stage counts: `earlier` is lost.
    pub fn repeated(&mut self, earlier: &Instruction) {
        self.report(
            Rule::MultipleInstructionsDisallowed,
            earlier,
            format!(
                "Multiple {} instructions should not be used in the same stage because only the \
                 last one will be used",
                earlier.keyword.text.to_uppercase()
            ),
        );
    }
}
