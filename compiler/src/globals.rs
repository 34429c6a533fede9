//! The variables outside of any stage: ARGs before the first FROM, on top of the predefined ones.

use std::{collections::BTreeSet, sync::Arc};

use indexmap::IndexMap;

use crate::{
    diagnostic::Diagnostic,
    instruction::{Command, Instruction},
    shellword::{Expander, Expansion},
    syntax::Word,
};

/// The variables outside of any stage.
pub(crate) struct Globals {
    /// Values of global ARGs and of the predefined ones.
    pub values: IndexMap<String, String>,
    /// Names of global ARGs, with or without a value.
    pub declared: BTreeSet<String>,
}

impl Globals {
    /// Reads the ARGs before the first FROM on top of `predefined`.
    pub fn read(
        predefined: IndexMap<String, String>,
        instructions: &[Arc<Instruction>],
        build_args: &IndexMap<String, String>,
    ) -> Result<Self, Diagnostic> {
        let mut globals = Self { values: predefined, declared: BTreeSet::new() };
        for instruction in instructions {
            let declarations = match &instruction.command {
                Command::Arg(declarations) => declarations,
                Command::From(_) => return Ok(globals),
                _ => {
                    return Err(Diagnostic::error(
                        "no-stage",
                        format!(
                            "{} stands before the first FROM: no build stage in current context",
                            instruction.keyword.text.to_uppercase()
                        ),
                    )
                    .at(&instruction.source, instruction.keyword.span)
                    .help("begin with FROM; only ARG may stand before it"));
                }
            };
            for declaration in declarations {
                let name = &declaration.name.text;
                let value = match (build_args.get(name), &declaration.default) {
                    (Some(given), _) => Some(given.clone()),
                    (None, Some(default)) => {
                        Some(expand(instruction, default, &globals.values)?.text)
                    }
                    (None, None) => None,
                };
                if let Some(value) = value {
                    globals.values.insert(name.clone(), value);
                }
                globals.declared.insert(name.clone());
            }
        }
        Ok(globals)
    }
}

/// Expands a word of an instruction outside of any stage.
pub(crate) fn expand(
    instruction: &Instruction,
    word: &Word,
    variables: &IndexMap<String, String>,
) -> Result<Expansion, Diagnostic> {
    Expander::new(instruction.escape).expand(&word.text, variables).map_err(|error| {
        Diagnostic::error("bad-expansion", format!("failed to process {:?}: {error}", word.text))
            .at(&instruction.source, word.part(error.range.clone()))
    })
}
