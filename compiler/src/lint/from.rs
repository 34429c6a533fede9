//! Checks of FROM once its variables are known.

use std::sync::Arc;

use rbc_ir::Platform;

use super::{Linter, Rule, words::place_of};
use crate::{
    globals::Globals,
    go_format,
    instruction::{Command, Instruction},
    reference,
    shellword::{Expander, Expansion},
    syntax::Word,
};

impl Linter {
    /// Base images that are none if nobody passes build arguments. `defaults` are the global
    /// variables without any.
    pub fn default_bases(&mut self, instructions: &[Arc<Instruction>], defaults: &Globals) {
        for instruction in instructions {
            let Command::From(from) = &instruction.command else { continue };
            let expander = Expander::new(instruction.escape);
            let Ok(expanded) = expander.expand(&from.base.text, &defaults.values) else { return };
            if reference::normalise(&expanded.text).is_err() {
                let written = &from.base.text;
                self.report_at(
                    Rule::InvalidDefaultArgInFrom,
                    &instruction.source,
                    from.base.span,
                    format!(
                        "Default value for ARG {written} results in empty or invalid base image \
                         name"
                    ),
                    match expanded.unset.first() {
                        Some(name) => format!("give it a default: `ARG {name}=…`"),
                        None => "give its ARGs defaults that name an image".to_owned(),
                    },
                );
            }
        }
    }

    /// Variables of FROM that no ARG declares.
    pub fn undeclared_in_from(
        &mut self,
        instruction: &Instruction,
        word: &Word,
        unset: &[String],
        globals: &Globals,
    ) {
        for name in unset {
            if globals.declared.contains(name) || globals.values.contains_key(name) {
                continue;
            }
            let names = globals.values.keys().chain(&globals.declared).map(String::as_str);
            let near = self.nearest(name, names);
            let hint = near.map_or(String::new(), |near| format!(" (did you mean {near}?)"));
            self.report(
                Rule::UndefinedArgInFrom,
                instruction,
                place_of(name, word),
                format!("FROM argument '{name}' is not declared{hint}"),
                match near {
                    Some(near) => format!("write ${{{near}}}"),
                    None => format!("declare it before the first FROM: `ARG {name}=…`"),
                },
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
                self.report(
                    Rule::FromPlatformFlagConstDisallowed,
                    instruction,
                    word.span,
                    format!(
                        "FROM --platform flag should not use constant value {}",
                        go_format::quoted(&expanded.text)
                    ),
                    "use $BUILDPLATFORM, leave the flag out, or name the platform in the stage's \
                     name",
                );
            }
        } else if expanded.unset.is_empty()
            && matches!(&expanded.used[..], [only] if only == "TARGETPLATFORM")
            && globals.values.get("TARGETPLATFORM") == Some(&expanded.text)
        {
            self.report(
                Rule::RedundantTargetPlatform,
                instruction,
                word.span,
                format!(
                    "Setting platform to predefined {} in FROM is redundant as this is the \
                     default behavior",
                    word.text
                ),
                "leave the flag out",
            );
        }
    }
}
