//! How commands fail, and how the user is told.

use std::{
    fmt::Write as _,
    io::{IsTerminal, Write as _},
    process::ExitCode,
    sync::Arc,
};

use rbc_compiler::{
    diagnostic::{Diagnostic, Diagnostics, Style},
    syntax::{SourceFile, Span},
};
use rbc_ir::{Digest, Graph};
use rbc_runtime::build::BuildError;

use crate::render::{Colours, fit, no_colours, on_one_line, printable};

/// What a command returns.
pub type Outcome = Result<(), Failure>;

/// Why a command ends without success.
#[derive(Debug)]
pub enum Failure {
    /// The call was wrong: exit code 2.
    Usage(String),
    /// The work failed: exit code 1. The text is complete, with its `error:`.
    Told(String),
    /// The answer is no, and was printed: exit code 1.
    Negative,
    /// The work failed: exit code 1.
    Failed(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl Failure {
    /// What went wrong, in one line.
    pub fn summary(&self) -> Option<String> {
        let text = match self {
            Self::Usage(text) | Self::Told(text) => text.clone(),
            Self::Negative => return None,
            Self::Failed(error) => chain(error),
        };
        text.lines().next().map(str::to_owned)
    }

    /// Tells the user and gives the exit code.
    pub fn report(self) -> ExitCode {
        match self {
            Self::Usage(message) => {
                tell(&format!("error: {message}\n\nFor more information, try '--help'."));
                ExitCode::from(2)
            }
            Self::Told(text) => {
                tell(&text);
                ExitCode::FAILURE
            }
            Self::Negative => ExitCode::FAILURE,
            Self::Failed(error) => {
                // A pipe that was closed (`rbc images | head`) is how a reader says enough. Only
                // what is printed ends with a bare I/O error: an archive that is cut off or a
                // connection that broke has an error of its own, and is a failure.
                let closed = error
                    .downcast_ref::<std::io::Error>()
                    .is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe);
                if closed {
                    return ExitCode::SUCCESS;
                }
                let text = chain(&error);
                tell(&format!("error: {text}"));
                if let Some(remedy) = remedy(&text) {
                    tell(&format!("help: {remedy}"));
                }
                ExitCode::FAILURE
            }
        }
    }
}

/// Prints a message for the user. Where nobody can read it, the exit code has to do.
pub fn tell(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// An error with its causes. Many errors name their cause themselves; it is not said twice.
fn chain(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |text, cause| match text.as_str() {
        "" => cause,
        text if text.ends_with(&cause) => text.to_owned(),
        text => format!("{text}: {cause}"),
    })
}

/// What can be done about a disk that does not take what is written. Errors of the system come
/// wrapped in many ways, with their number in the text.
fn remedy(text: &str) -> Option<&'static str> {
    let is_about_state = text.contains("state folder");
    let has = |code: &str| text.contains(&format!("(os error {code})"));
    if has("28") || has("122") {
        Some(
            "a disk is full; if it is that of the state folder, `rbc du` tells what takes space, \
             `rbc prune` removes what can be made again, and --root or RBC_ROOT names a folder \
             elsewhere",
        )
    } else if is_about_state && has("30") {
        Some(
            "the disk may only be read: `rbc images`, `rbc du`, `rbc save` and the like work; to \
             build, mount it for writing or name another state folder with --root or RBC_ROOT",
        )
    } else if is_about_state && has("13") {
        Some(
            "the state folder belongs to another user: name one of your own with --root or RBC_ROOT",
        )
    } else {
        None
    }
}

/// Whether messages on standard error have colours.
pub fn style() -> Style {
    if !no_colours() && std::io::stderr().is_terminal() { Style::Colour } else { Style::Plain }
}

impl Failure {
    /// One error with its place.
    pub fn diagnostic(error: Diagnostic) -> Self {
        Self::Told(error.render(style()))
    }
}

/// Errors of the compiler.
pub fn diagnostics(diagnostics: &Diagnostics) -> Failure {
    Failure::Told(diagnostics.render(style()))
}

/// Columns of the name of a step; the instruction itself is shown below it.
const MAX_NAME: usize = 76;

/// A failed build, shown at the instruction that failed with what it printed last.
pub fn build_failure(graph: &Graph, error: BuildError) -> Failure {
    let BuildError::Step { node, name, cause, last_lines, likely, log } = error else {
        return Failure::Failed(error.into());
    };
    if matches!(*cause, BuildError::Cancelled) {
        return Failure::Failed((*cause).into());
    }
    let mut text = String::new();
    if !last_lines.is_empty() {
        // Writing to a string does not fail.
        let words: Vec<&str> = name.split_whitespace().collect();
        let _ = writeln!(text, "------\n > {}:", fit(&on_one_line(&words.join(" ")), MAX_NAME));
        for line in &last_lines {
            let _ = writeln!(text, "{}", printable(line, Colours::Drop));
        }
        let _ = writeln!(text, "------");
    }
    let mut shown = Diagnostic::error("step-failed", cause.to_string());
    if let Some((source, span)) = place(graph, &node) {
        shown = shown.at_whole(&source, span).label("this step failed");
    } else if !name.is_empty() {
        shown = shown.note(format!("in {name}"));
    }
    if let Some(likely) = likely {
        shown = shown.help(format!("likely cause: {likely}"));
    } else if let Some(remedy) = remedy(&cause.to_string()) {
        shown = shown.help(remedy.to_owned());
    }
    if let Some(log) = log {
        shown = shown.note(format!("all that it printed is in {}", log.display()));
    }
    text.push_str(&shown.render(style()));
    Failure::Told(text)
}

/// Where the instruction of a node is written.
fn place(graph: &Graph, node: &Digest) -> Option<(Arc<SourceFile>, Span)> {
    let span = graph.node_meta(node).span?;
    let file = graph.meta.files.get(span.file as usize)?;
    let source = Arc::new(SourceFile::new(file.name.clone(), file.text.clone()));
    Some((source, Span::new(span.start as usize, span.end as usize)))
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    #[test]
    fn a_cause_is_named_once() {
        let inner = std::io::Error::other("disk full");
        let error = Err::<(), _>(inner).context("cannot write x: disk full").context("no image");
        assert_eq!(super::chain(&error.unwrap_err()), "no image: cannot write x: disk full");
    }
}
