//! Switches with a value: docker takes `--pull=true` and `--no-cache=false`, as Go's flags do, where
//! clap's switches take none; and `--sbom .` must not take the context for its value. The command line
//! is rewritten before clap reads it.

use std::ffi::OsString;

use clap::{ArgAction, Command, CommandFactory};

use super::Cli;

/// Rewrites `--switch=true` to `--switch`, and drops switches whose last mention says false. What is
/// no truth value is left for clap to refuse. `--sbom` and `--provenance` become `--sbom=true` unless
/// a value follows.
pub fn settle(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let arguments: Vec<OsString> = arguments.collect();
    // Knowing all switches takes time that most calls can save.
    let is_special = |argument: &OsString| {
        argument.to_str().is_some_and(|text| with_truth(text).is_some() || is_statement(text))
    };
    if !arguments.iter().any(is_special) {
        return arguments;
    }
    let command = Cli::command();
    let mut settled: Vec<OsString> = Vec::new();
    let mut spoken: Option<&Command> = None;
    let mut arguments = arguments.into_iter().peekable();
    while let Some(argument) = arguments.next() {
        if argument == "--" {
            settled.push(argument);
            break;
        }
        let text = argument.to_str().unwrap_or_default();
        let Some(spoken) = spoken else {
            spoken = command.find_subcommand(text);
            settled.push(argument);
            continue;
        };
        let next = arguments.peek().and_then(|next| next.to_str()).unwrap_or_default();
        match with_truth(text) {
            None if is_statement(text) && !is_statement_value(next) => {
                settled.push(format!("{text}=true").into());
            }
            Some((name, on)) if is_switch(spoken, name) => {
                if on {
                    settled.push(name.into());
                } else {
                    settled.retain(|earlier| earlier != name);
                }
            }
            _ => settled.push(argument),
        }
    }
    settled.extend(arguments);
    settled
}

/// Whether a command has `--name` or `-n` as a switch.
fn is_switch(command: &Command, name: &str) -> bool {
    command.get_arguments().any(|argument| {
        matches!(argument.get_action(), ArgAction::SetTrue)
            && match name.strip_prefix("--") {
                Some(long) => argument
                    .get_long_and_visible_aliases()
                    .is_some_and(|names| names.contains(&long)),
                None => {
                    let short = name.strip_prefix('-').and_then(|name| name.parse().ok());
                    short.is_some() && short == argument.get_short()
                }
            }
    })
}

/// Whether this is an option with a value that may be left out.
fn is_statement(text: &str) -> bool {
    matches!(text, "--sbom" | "--provenance")
}

/// Whether this can be the value of such an option, and not the context.
fn is_statement_value(text: &str) -> bool {
    let keys = ["mode", "builder-id", "version", "inline-only", "reproducible", "disabled"];
    let key = text.split_once('=').map(|(key, _)| key);
    truth(text).is_some() || key.is_some_and(|key| key == "generator" || keys.contains(&key))
}

/// Splits `NAME=VALUE` whose value is a truth value.
fn with_truth(text: &str) -> Option<(&str, bool)> {
    let (name, value) = text.split_once('=')?;
    Some((name, truth(value)?))
}

/// The truth values of Go's `strconv.ParseBool`.
fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(line: &str) -> String {
        let arguments = settle(line.split(' ').map(OsString::from));
        arguments.join(" ".as_ref()).into_string().unwrap()
    }

    #[test]
    fn switches_take_truth_values() {
        assert_eq!(settled("rbc build --pull=true -q=1 ."), "rbc build --pull -q .");
        assert_eq!(settled("rbc build --no-cache=false ."), "rbc build .");
        assert_eq!(settled("rbc build --pull --pull=false ."), "rbc build .");
        assert_eq!(settled("rbc build --pull=false --pull=True ."), "rbc build --pull .");
    }

    #[test]
    fn a_context_is_no_statement() {
        assert_eq!(settled("rbc build --sbom ."), "rbc build --sbom=true .");
        assert_eq!(settled("rbc build . --provenance"), "rbc build . --provenance=true");
        assert_eq!(
            settled("rbc build --provenance --sbom ."),
            "rbc build --provenance=true --sbom=true ."
        );
        for line in ["rbc build --sbom false .", "rbc build --provenance mode=max,version=v1 ."] {
            assert_eq!(settled(line), line);
        }
    }

    #[test]
    fn everything_else_is_left_alone() {
        for line in [
            "rbc build --pull=maybe .",
            "rbc build --target=true .",
            "rbc build --sbom=true .",
            "rbc build -- --pull=true",
            "rbc --pull=true",
        ] {
            assert_eq!(settled(line), line);
        }
    }
}
