//! HEALTHCHECK: its command, and when it runs.

use rbc_ir::Healthcheck;

use super::{
    CommandLine,
    duration::parse_duration,
    flags::{Flags, Kind::Text},
    line::Line,
};
use crate::{diagnostic::Diagnostic, syntax::Word};

/// Reads HEALTHCHECK. Its flags are not looked at if it says NONE, as in BuildKit.
pub(super) fn healthcheck(line: &Line<'_>) -> Result<Healthcheck, Diagnostic> {
    let arguments = line.parts.arguments.clone();
    let text = &line.text[arguments.clone()];
    if text.is_empty() {
        return Err(line.none_given());
    }
    let is_space = |char: char| char.is_ascii_whitespace() || char == '\u{b}';
    let length = text.find(is_space).unwrap_or(text.len());
    let rest = text[length..].trim_start_matches(is_space);
    let kind = arguments.start..arguments.start + length;
    let rest = arguments.end - rest.len()..arguments.end;
    let command = line.command_line(rest.clone())?;
    let name = text[..length].to_uppercase();
    if name == "NONE" {
        let is_empty = match &command {
            CommandLine::Exec(words) => words.is_empty(),
            CommandLine::Shell(text) => text.text.is_empty(),
        };
        if !is_empty {
            let message = "HEALTHCHECK NONE takes no arguments";
            return Err(line.error("healthcheck-none", message, rest));
        }
        return Ok(Healthcheck { test: vec![name], ..Healthcheck::default() });
    }
    let known = [
        ("interval", Text),
        ("timeout", Text),
        ("start-period", Text),
        ("start-interval", Text),
        ("retries", Text),
    ];
    let flags = Flags::read(line, &known)?;
    if name != "CMD" {
        let message = format!("Unknown type {name:?} in HEALTHCHECK (try CMD)");
        return Err(line
            .error("healthcheck-type", message, kind)
            .help("write `HEALTHCHECK CMD COMMAND` or `HEALTHCHECK NONE`"));
    }
    let missing =
        || line.error("missing-argument", "Missing command after HEALTHCHECK CMD", kind.clone());
    let test = match command {
        CommandLine::Exec(words) if words.is_empty() => return Err(missing()),
        CommandLine::Shell(text) if text.text.is_empty() => return Err(missing()),
        CommandLine::Exec(words) => {
            std::iter::once(name).chain(words.into_iter().map(|word| word.text)).collect()
        }
        CommandLine::Shell(text) => vec!["CMD-SHELL".to_owned(), text.text],
    };
    let interval = |flag: &str| interval(line, flag, flags.non_empty(flag));
    Ok(Healthcheck {
        test,
        interval: interval("interval")?,
        timeout: interval("timeout")?,
        start_period: interval("start-period")?,
        start_interval: interval("start-interval")?,
        retries: retries(line, flags.non_empty("retries"))?,
    })
}

/// A time of HEALTHCHECK in nanoseconds; 0 if it is not given.
fn interval(line: &Line<'_>, flag: &str, value: Option<Word>) -> Result<i64, Diagnostic> {
    const LEAST: i64 = 1_000_000;
    let Some(value) = value else { return Ok(0) };
    let fault = |message| line.error_at("bad-duration", message, value.span);
    match parse_duration(&value.text) {
        Ok(0) => Ok(0),
        Ok(duration) if duration < LEAST => {
            Err(fault(format!("interval {flag:?} cannot be less than 1ms")))
        }
        Ok(duration) => Ok(duration),
        Err(error) => Err(fault(format!("--{flag}: {error}"))
            .help("a duration is a number with a unit, such as 30s, 1m30s or 250ms")),
    }
}

fn retries(line: &Line<'_>, value: Option<Word>) -> Result<i64, Diagnostic> {
    let Some(value) = value else { return Ok(0) };
    let fault = |message| Err(line.error_at("bad-retries", message, value.span));
    match value.text.parse::<i32>() {
        Ok(retries) if retries < 0 => fault(format!("--retries cannot be negative ({retries})")),
        Ok(retries) => Ok(retries.into()),
        Err(_) => fault(format!("--retries: {:?} is not a number", value.text)),
    }
}
