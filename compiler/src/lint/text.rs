//! The checks that need nothing but the instructions as they are written.

use std::{collections::HashSet, sync::Arc};

use super::{Linter, Rule, secret};
use crate::{
    diagnostic::Diagnostic,
    instruction::{Command, From, Instruction, KeyValue},
    syntax::{Span, Word},
};

impl Linter {
    /// Empty lines in continuations, which the parser found.
    pub fn empty_continuations(&mut self, warnings: &[Diagnostic]) {
        for place in warnings.iter().filter_map(|warning| warning.location.as_ref()) {
            self.report_at(
                Rule::NoEmptyContinuation,
                &place.source,
                place.span,
                "Empty continuation line".to_owned(),
                "remove the line, or make it a comment",
            );
        }
    }

    /// All checks of single instructions.
    pub fn check_text(&mut self, instructions: &[Arc<Instruction>]) {
        for instruction in instructions {
            match &instruction.command {
                Command::From(from) => self.check_from(instruction, from),
                Command::Maintainer(author) => self.report(
                    Rule::MaintainerDeprecated,
                    instruction,
                    instruction.keyword.span,
                    "Maintainer instruction is deprecated in favor of using label".to_owned(),
                    format!("write `LABEL org.opencontainers.image.authors={:?}`", author.text),
                ),
                Command::Arg(declarations) => {
                    let names: Vec<&str> =
                        declarations.iter().map(|d| d.name.text.as_str()).collect();
                    self.description(instruction, "ARG", &names);
                    for declaration in declarations {
                        if let Some(default) = &declaration.default {
                            self.secret_value(instruction, "ARG", &declaration.name, default);
                        }
                    }
                }
                Command::Env(pairs) => {
                    for pair in pairs {
                        self.secret_value(instruction, "ENV", &pair.key, &pair.value);
                    }
                }
                _ => {}
            }
        }
        let first_stage = instructions.iter().position(|i| matches!(i.command, Command::From(_)));
        let in_stages = &instructions[first_stage.unwrap_or(instructions.len())..];
        self.stage_names(in_stages);
        self.casing(in_stages);
    }

    /// Whether all keywords look alike. ARGs before the first FROM do not count.
    fn casing(&mut self, instructions: &[Arc<Instruction>]) {
        let is_lower = |word: &str| word == word.to_lowercase();
        let is_upper = |word: &str| word == word.to_uppercase();
        let keywords = || instructions.iter().map(|instruction| instruction.keyword.text.as_str());
        let lower = keywords().filter(|keyword| is_lower(keyword)).count();
        let upper = keywords().filter(|keyword| is_upper(keyword)).count();
        let mostly_lower = lower > upper;
        for instruction in instructions {
            let keyword = &instruction.keyword;
            let (fits, casing, right) = if mostly_lower {
                (is_lower(&keyword.text), "lowercase", keyword.text.to_lowercase())
            } else {
                (is_upper(&keyword.text), "uppercase", keyword.text.to_uppercase())
            };
            if !fits {
                let message = format!(
                    "Command '{}' should match the case of the command majority ({casing})",
                    keyword.text
                );
                let help = format!("write {right}");
                let rule = Rule::ConsistentInstructionCasing;
                self.report_at(rule, &instruction.source, keyword.span, message, help);
            }
        }
    }

    fn stage_names(&mut self, instructions: &[Arc<Instruction>]) {
        let mut seen = HashSet::new();
        for instruction in instructions {
            let Command::From(From { name: Some(name), .. }) = &instruction.command else {
                continue;
            };
            if matches!(name.text.as_str(), "scratch" | "context") {
                self.report_at(
                    Rule::ReservedStageName,
                    &instruction.source,
                    name.span,
                    format!(
                        "Stage name should not use the same name as reserved stage {:?}",
                        name.text
                    ),
                    "give the stage another name",
                );
            }
            if !seen.insert(name.text.as_str()) {
                self.report_at(
                    Rule::DuplicateStageName,
                    &instruction.source,
                    name.span,
                    format!("Duplicate stage name {:?}, stage names should be unique", name.text),
                    "give this stage another name: only one of the two can be meant",
                );
            }
        }
    }

    fn check_from(&mut self, instruction: &Instruction, from: &From) {
        let Some(name) = &from.name else { return };
        let written = instruction.source.slice(name.span);
        let lower = written.to_lowercase();
        if written != lower {
            self.report(
                Rule::StageNameCasing,
                instruction,
                name.span,
                format!("Stage name '{written}' should be lowercase"),
                format!("write {lower}"),
            );
        }
        self.as_casing(instruction, name);
        self.description(instruction, "FROM", &[&name.text]);
    }

    /// A FROM in mixed case is the matter of another rule.
    fn as_casing(&mut self, instruction: &Instruction, name: &Word) {
        let keyword = &instruction.keyword.text;
        let before = instruction.source.slice(Span::new(instruction.span.start, name.span.start));
        let Some(at) = before.to_ascii_lowercase().rfind("as") else { return };
        let (word, span) = (&before[at..at + 2], instruction.span.start + at);
        let right = if *keyword == keyword.to_lowercase() {
            "as"
        } else if *keyword == keyword.to_uppercase() {
            "AS"
        } else {
            return;
        };
        if word != right {
            self.report(
                Rule::FromAsCasing,
                instruction,
                Span::new(span, span + 2),
                format!("'{word}' and '{keyword}' keywords' casing do not match"),
                format!("write {right}"),
            );
        }
    }

    /// The comment right above a stage or argument should begin with its name.
    fn description(&mut self, instruction: &Instruction, keyword: &str, names: &[&str]) {
        let Some(comment) = instruction.comments.last() else { return };
        let first = comment.text.split(' ').next().unwrap_or_default();
        let example = match names {
            [] => return,
            _ if names.contains(&first) => return,
            [only] => only,
            _ => "<arg_key>",
        };
        self.report(
            Rule::InvalidDefinitionDescription,
            instruction,
            comment.span,
            format!("Comment for {keyword} should follow the format: `# {example} <description>`"),
            "or put an empty line between the comment and the instruction",
        );
    }

    fn secret_value(&mut self, by: &Instruction, keyword: &str, name: &Word, value: &Word) {
        let Some((kind, range)) = secret::find(&value.text) else { return };
        self.report(
            Rule::SecretValueInArgOrEnv,
            by,
            value.part(range),
            format!("The value of {keyword} {} looks like {kind}", name.text),
            "pass it with `RUN --mount=type=secret,id=…` and `rbc build --secret`, and revoke it \
             if the file was shared",
        );
    }

    /// `ENV name value`; told where the value is known, since an ignored stage is not looked at.
    pub fn legacy_pairs(&mut self, instruction: &Instruction, pairs: &[KeyValue]) {
        for pair in pairs.iter().filter(|pair| pair.legacy) {
            let name = &instruction.keyword.text;
            self.report(
                Rule::LegacyKeyValueFormat,
                instruction,
                pair.key.span,
                format!(
                    "\"{name} key=value\" should be used instead of legacy \"{name} key value\" \
                     format"
                ),
                format!("write `{name} {}={}`", pair.key.text, shown(&pair.value.text)),
            );
        }
    }
}

/// A value as it would be written behind `=`.
fn shown(value: &str) -> String {
    let is_plain = !value.contains(char::is_whitespace) || value.starts_with(['"', '\'']);
    let short: String = value.chars().take(60).collect();
    match (is_plain, short.len() < value.len()) {
        (_, true) => "\"…\"".to_owned(),
        (true, false) => short,
        (false, false) => format!("\"{short}\""),
    }
}
