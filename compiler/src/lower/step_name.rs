//! How steps are named in progress and errors: `[builder 2/4] RUN make`, as in BuildKit.

use indexmap::IndexMap;
use rbc_ir::Platform;

use crate::{
    instruction::Instruction,
    shellword::{Escapes, Expander, Quotes, Unset},
};

/// Counts the steps of a stage.
#[derive(Debug)]
pub(super) struct Counter {
    prefix: String,
    total: usize,
    index: usize,
}

impl Counter {
    /// For a stage of `total` steps; `platform` is shown if several are built.
    pub fn new(stage: &str, total: usize, platform: Option<&Platform>) -> Self {
        let mut prefix = platform.map_or(String::new(), |platform| format!("{platform} "));
        if !stage.is_empty() {
            prefix.push_str(stage);
            prefix.push(' ');
        }
        Self { prefix, total, index: 0 }
    }

    /// For steps that do not count.
    pub fn none() -> Self {
        Self { prefix: String::new(), total: 0, index: 0 }
    }

    /// The name of the next step.
    pub fn next(&mut self, text: &str, is_trigger: bool) -> String {
        if self.total == 0 {
            return text.to_owned();
        }
        self.index += 1;
        let width = self.total.ilog10() as usize + 1;
        let trigger = if is_trigger { "ONBUILD " } else { "" };
        format!("[{}{:>width$}/{}] {trigger}{text}", self.prefix, self.index, self.total)
    }
}

/// An instruction as its step shows it: keyword in upper case, variables expanded if possible.
pub(super) fn shown(
    instruction: &Instruction,
    suffix: &str,
    escape: char,
    variables: &IndexMap<String, String>,
) -> String {
    let code = format!("{}{suffix}", instruction.code);
    upper_keyword(&expanded(&Expander::new(escape), &code, variables))
}

/// The same for RUN, where quotes stay and unset variables are the shell's affair.
pub(super) fn shown_run(
    instruction: &Instruction,
    suffix: &str,
    escape: char,
    variables: &IndexMap<String, String>,
) -> String {
    let expander =
        Expander { escape, quotes: Quotes::Keep, escapes: Escapes::Remove, unset: Unset::Keep };
    upper_keyword(&expanded(&expander, &format!("{}{suffix}", instruction.code), variables))
}

fn expanded(expander: &Expander, text: &str, variables: &IndexMap<String, String>) -> String {
    match expander.expand(text, variables) {
        Ok(expansion) => expansion.text,
        Err(_) => text.to_owned(),
    }
}

fn upper_keyword(text: &str) -> String {
    match text.split_once(' ') {
        Some((keyword, rest)) => format!("{} {rest}", keyword.to_uppercase()),
        None => text.to_uppercase(),
    }
}

/// The first line of a heredoc, for the name of the step that runs it.
pub(super) fn summary(heredoc: &str) -> String {
    let trimmed = heredoc.trim();
    match trimmed.split_once('\n') {
        Some((first, _)) => format!("{}...", first.trim_end_matches('\r')),
        None => trimmed.to_owned(),
    }
}
