//! Build checks: what works but is probably not meant.
//!
//! Beside the other steps of the compiler, which call it where they know enough to judge: `text`
//! looks at the instructions as they are, `from` at base images, `words` at expanded words, and
//! `advice` at stages as a whole. `rule` names the rules, `config` says which of them count.

mod advice;
mod config;
mod from;
mod rule;
mod secret;
mod text;
mod words;

use std::{collections::BTreeSet, sync::Arc};

use rbc_ir::pattern::PatternMatcher;

use self::config::Config;
pub use self::rule::{Origin, Rule};
use crate::{
    diagnostic::Diagnostic,
    instruction::Instruction,
    options::CompileOptions,
    suggest::nearest_variable,
    syntax::{Comment, SourceFile, Span, Word},
};

/// How many names one compilation compares for "did you mean". A text with more faults than that is
/// no matter of spelling.
const MAX_COMPARISONS: usize = 20_000;

/// How many findings are kept. Showing one costs as much as its line is long.
const MAX_FINDINGS: usize = 5_000;

/// Collects the findings of one compilation.
#[derive(Debug, Default)]
pub(crate) struct Linter {
    config: Config,
    silent: bool,
    ignore: Option<Ignore>,
    comparisons: usize,
    /// Names of the rules that make the build fail.
    failing: BTreeSet<&'static str>,
    /// What was found, in order.
    pub found: Vec<Diagnostic>,
}

/// The ignore file of the build context, if it is simple enough to judge by: no exceptions.
#[derive(Debug)]
struct Ignore {
    patterns: Vec<String>,
    /// The file's name, and the lines of its patterns as far as they are known.
    file: String,
    lines: Vec<usize>,
    matcher: PatternMatcher,
    /// A pattern that hides all of the context.
    hides_all: bool,
}

impl Linter {
    /// Reads the `check` directive, or the build argument in its place.
    pub fn new(check: Option<&Word>, options: &CompileOptions) -> Result<Self, Diagnostic> {
        let config = Config::read(check.map_or("", |word| &word.text)).map_err(|error| {
            Diagnostic::error("bad-check", format!("failed to parse check options: {error}"))
                .help("write check=skip=RULE,RULE;error=true")
        })?;
        let ignore = &options.context.ignore;
        let is_simple = !ignore.is_empty() && !ignore.iter().any(|p| p.starts_with('!'));
        let matcher = if is_simple { PatternMatcher::new(ignore).ok() } else { None };
        let ignore = matcher.map(|matcher| Ignore {
            matcher,
            hides_all: ignore.iter().any(|p| matches!(p.as_str(), "*" | "**" | "**/*")),
            patterns: ignore.clone(),
            file: options.context.ignore_file.clone(),
            lines: options.ignore_lines.clone(),
        });
        Ok(Self { config, ignore, ..Self::default() })
    }

    /// One that finds nothing, for compiling the same text again for another platform.
    pub fn silent() -> Self {
        Self { silent: true, ..Self::default() }
    }

    /// The error of a build that `error=true` makes fail.
    pub fn failure(&self) -> Option<Diagnostic> {
        let rules: Vec<&str> = self.failing.iter().copied().collect();
        (!rules.is_empty()).then(|| {
            Diagnostic::error(
                "check",
                format!("lint violation found for rules: {}", rules.join(", ")),
            )
            .note("`check=error=true` makes build checks fail the build")
        })
    }

    /// A finding at a place of an instruction, whose comments may turn it off.
    pub fn report(
        &mut self,
        rule: Rule,
        by: &Instruction,
        span: Span,
        message: String,
        help: impl Into<String>,
    ) {
        self.add(rule, &by.comments, &by.source, span, message, help.into());
    }

    /// A finding that no comment turns off.
    pub fn report_at(
        &mut self,
        rule: Rule,
        source: &Arc<SourceFile>,
        span: Span,
        message: String,
        help: impl Into<String>,
    ) {
        self.add(rule, &[], source, span, message, help.into());
    }

    fn add(
        &mut self,
        rule: Rule,
        comments: &[Comment],
        source: &Arc<SourceFile>,
        span: Span,
        message: String,
        help: String,
    ) {
        if self.silent || !self.config.allows(rule, comments) {
            return;
        }
        let finding = Diagnostic::warning(rule.name(), message).at(source, span).help(help);
        if self.found.last() == Some(&finding) {
            return;
        }
        if self.config.fails_build(rule) {
            self.failing.insert(rule.name());
        }
        if self.found.len() < MAX_FINDINGS {
            self.found.push(finding);
        }
    }

    /// The variable nearest to a wrong one.
    fn nearest<'a>(
        &mut self,
        name: &str,
        known: impl IntoIterator<Item = &'a str>,
    ) -> Option<&'a str> {
        if self.silent || self.comparisons >= MAX_COMPARISONS {
            return None;
        }
        nearest_variable(name, known.into_iter().inspect(|_| self.comparisons += 1))
    }
}
