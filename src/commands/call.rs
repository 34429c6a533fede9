//! `rbc build --check` and `--call`: what can be said about a Dockerfile without building it.
//!
//! The JSON forms are those of BuildKit's `frontend/subrequests`. What checks find also has a `span`,
//! the exact place, and `suggestions`.

use std::{
    io::{self, IsTerminal, Write},
    ops::RangeInclusive,
    sync::Arc,
};

use rbc_compiler::{
    Checked, check,
    diagnostic::Style,
    outline::{self, Outline, SourceInfo, TargetInfo},
    syntax::{SourceFile, Span},
};
use rbc_runtime::{registry::Client, store::Store};
use serde_json::{Map, Value, json};

use super::{Failure, Outcome, compile, report};
use crate::{
    cli::{BuildContext, Call, CallMethod, CompileFlags},
    inputs::Inputs,
    resolver::RuntimeResolver,
    ssh,
};

/// Prints what is asked for. Checks that find something are a failure.
pub fn call(
    store: &Store,
    inputs: &Inputs,
    named: &[BuildContext],
    flags: &CompileFlags,
    registry: &Client,
    how: Call,
) -> Outcome {
    let source = &inputs.dockerfile;
    let options = compile::options_for(inputs, named, flags)?;
    let mut passed = true;
    let text = match how.method {
        CallMethod::Build => return Ok(()),
        CallMethod::Check => {
            let contexts = compile::contexts_of(store, inputs, named)?;
            let agent = ssh::own_agent();
            let resolver =
                RuntimeResolver::new(store, &contexts, named, (registry, agent.as_deref()));
            let checked = check(source, &options, &resolver);
            passed = checked.findings.is_empty() && checked.errors.is_empty();
            if how.json { pretty(&check_json(&checked, source)) } else { check_text(&checked) }
        }
        CallMethod::Outline => {
            let outline =
                outline::outline(source, &options).map_err(|e| report::diagnostics(&e))?;
            if how.json { pretty(&outline_json(&outline, source)) } else { outline_text(&outline) }
        }
        CallMethod::Targets => {
            let targets = outline::targets(source).map_err(|e| report::diagnostics(&e))?;
            if how.json { pretty(&targets_json(&targets, source)) } else { targets_text(&targets) }
        }
    };
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    if passed { Ok(()) } else { Err(Failure::Negative) }
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

fn style() -> Style {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if !plain && io::stdout().is_terminal() { Style::Colour } else { Style::Plain }
}

fn check_text(checked: &Checked) -> String {
    let mut text = match checked.findings.len() {
        0 if checked.errors.is_empty() => "Check complete, no warnings found.\n".to_owned(),
        0 => String::new(),
        1 => "Check complete, 1 warning has been found!\n".to_owned(),
        n => format!("Check complete, {n} warnings have been found!\n"),
    };
    let mut parts: Vec<String> = Vec::new();
    for finding in &checked.findings {
        let diagnostic = match finding.rule.url() {
            Some(url) => finding.diagnostic.clone().note(url),
            None => finding.diagnostic.clone(),
        };
        parts.push(diagnostic.render(style()));
    }
    parts.extend(checked.errors.iter().map(|error| error.render(style())));
    for image in &checked.unknown_images {
        parts.push(format!("note: a base image could not be looked at: {image}"));
    }
    for part in parts {
        text.push_str(&format!("\n{part}\n"));
    }
    text
}

fn check_json(checked: &Checked, source: &Arc<SourceFile>) -> Value {
    // Triggers of base images are texts of their own.
    let mut sources = vec![Arc::clone(source)];
    let mut index_of = |wanted: &Arc<SourceFile>| match sources.iter().position(|s| s == wanted) {
        Some(index) => index,
        None => {
            sources.push(Arc::clone(wanted));
            sources.len() - 1
        }
    };
    let warnings: Vec<Value> = checked
        .findings
        .iter()
        .map(|finding| {
            let mut warning = Map::new();
            warning.insert("ruleName".to_owned(), finding.rule.name().into());
            warning.insert("description".to_owned(), finding.rule.description().into());
            if let Some(url) = finding.rule.url() {
                warning.insert("url".to_owned(), url.into());
            }
            warning.insert("detail".to_owned(), finding.diagnostic.message.clone().into());
            if let Some(place) = &finding.diagnostic.location {
                let mut shown = location(finding.lines.clone());
                let index = index_of(&place.source);
                if index > 0 {
                    shown["sourceIndex"] = index.into();
                }
                warning.insert("location".to_owned(), shown);
                warning.insert("span".to_owned(), exact(&place.source, place.span));
            }
            warning.insert("suggestions".to_owned(), finding.diagnostic.help.clone().into());
            Value::Object(warning)
        })
        .collect();
    let mut result = json!({ "warnings": warnings });
    if let Some(error) = checked.errors.iter().next() {
        result["buildError"] = json!({ "message": error.message });
        if let Some(place) = &error.location {
            let mut shown = location(checked.lines(place));
            let index = index_of(&place.source);
            if index > 0 {
                shown["sourceIndex"] = index.into();
            }
            result["buildError"]["location"] = shown;
            result["buildError"]["span"] = exact(&place.source, place.span);
        }
    }
    let sources: Vec<Value> = sources
        .iter()
        .map(|source| {
            json!({
                "filename": source.name(),
                "language": "Dockerfile",
                "data": base64(&source.bytes()),
            })
        })
        .collect();
    result["sources"] = sources.into();
    result
}

/// The place of an instruction as BuildKit writes it: a range for each line, counted from 1.
fn location(lines: RangeInclusive<usize>) -> Value {
    let range = |line| json!({ "start": { "line": line }, "end": { "line": line } });
    json!({ "ranges": lines.map(range).collect::<Vec<_>>() })
}

/// The place of a word: lines are counted from 1, characters from 0.
fn exact(source: &SourceFile, span: Span) -> Value {
    let position = |offset: usize| {
        let (line, column) = source.line_column(offset);
        json!({ "line": line, "character": column - 1 })
    };
    json!({ "start": position(span.start), "end": position(span.end) })
}

/// The place of a whole instruction.
fn instruction(source: &SourceFile, span: Span) -> Value {
    location(source.line(span.start)..=source.line(span.end))
}

fn outline_text(outline: &Outline) -> String {
    let mut text = String::new();
    if !outline.name.is_empty() || !outline.description.is_empty() {
        let name = if outline.name.is_empty() { "(default)" } else { &outline.name };
        let mut rows = vec![vec!["TARGET:".to_owned(), name.to_owned()]];
        if !outline.description.is_empty() {
            rows.push(vec!["DESCRIPTION:".to_owned(), outline.description.clone()]);
        }
        text.push_str(&columns(&rows, 1));
        text.push('\n');
    }
    let mut table = |header: &[&str], rows: Vec<Vec<String>>| {
        if !rows.is_empty() {
            let header = header.iter().map(|&name| name.to_owned()).collect();
            let rows: Vec<Vec<String>> = std::iter::once(header).chain(rows).collect();
            text.push_str(&columns(&rows, 3));
            text.push('\n');
        }
    };
    let args = outline.args.iter().map(|arg| {
        vec![arg.name.clone(), arg.value.clone().unwrap_or_default(), arg.description.clone()]
    });
    table(&["BUILD ARG", "VALUE", "DESCRIPTION"], args.collect());
    for (name, list) in [("SECRET", &outline.secrets), ("SSH", &outline.ssh)] {
        let required = |one: &SourceInfo| if one.required { "true" } else { "" }.to_owned();
        let rows = list.iter().map(|one| vec![one.id.clone(), required(one)]);
        table(&[name, "REQUIRED"], rows.collect());
    }
    table(&["CACHE"], outline.caches.iter().map(|one| vec![one.id.clone()]).collect());
    text
}

fn outline_json(outline: &Outline, source: &SourceFile) -> Value {
    let mut result = Map::new();
    let mut text = |name: &str, value: &str| {
        if !value.is_empty() {
            result.insert(name.to_owned(), value.into());
        }
    };
    text("name", &outline.name);
    text("description", &outline.description);
    let args: Vec<Value> = outline
        .args
        .iter()
        .map(|arg| {
            let mut shown = json!({ "name": arg.name });
            if !arg.description.is_empty() {
                shown["description"] = arg.description.clone().into();
            }
            if let Some(value) = arg.value.as_ref().filter(|value| !value.is_empty()) {
                shown["value"] = value.clone().into();
            }
            shown["location"] = instruction(source, arg.span);
            shown
        })
        .collect();
    let mounted = |list: &[SourceInfo], key: &str| -> Vec<Value> {
        let one = |info: &SourceInfo| {
            let mut shown = json!({ key: info.id });
            if info.required {
                shown["required"] = true.into();
            }
            shown["location"] = instruction(source, info.span);
            shown
        };
        list.iter().map(one).collect()
    };
    for (name, list) in [
        ("args", args),
        ("secrets", mounted(&outline.secrets, "name")),
        ("ssh", mounted(&outline.ssh, "name")),
        ("cache", mounted(&outline.caches, "ID")),
    ] {
        if !list.is_empty() {
            result.insert(name.to_owned(), list.into());
        }
    }
    result.insert("sources".to_owned(), json!([base64(&source.bytes())]));
    Value::Object(result)
}

fn targets_text(targets: &[TargetInfo]) -> String {
    let mut rows = vec![vec!["TARGET".to_owned(), "DESCRIPTION".to_owned()]];
    for target in targets {
        let name = match (target.name.as_str(), target.is_default) {
            ("", true) => "(default)".to_owned(),
            (name, true) => format!("{name} (default)"),
            (name, false) => name.to_owned(),
        };
        rows.push(vec![name, target.description.clone()]);
    }
    columns(&rows, 1)
}

fn targets_json(targets: &[TargetInfo], source: &SourceFile) -> Value {
    let shown: Vec<Value> = targets
        .iter()
        .map(|target| {
            let mut shown = Map::new();
            let mut text = |name: &str, value: &str| {
                if !value.is_empty() {
                    shown.insert(name.to_owned(), value.into());
                }
            };
            text("name", &target.name);
            text("description", &target.description);
            text("base", &target.base);
            text("platform", &target.platform);
            if target.is_default {
                shown.insert("default".to_owned(), true.into());
            }
            shown.insert("location".to_owned(), instruction(source, target.span));
            Value::Object(shown)
        })
        .collect();
    json!({ "targets": shown, "sources": [base64(&source.bytes())] })
}

/// Rows with their columns below each other, `gap` spaces apart. The last column may be empty.
fn columns(rows: &[Vec<String>], gap: usize) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:width$}{:gap$}", ""));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Standard base64 (RFC 4648), as Go's JSON encodes bytes.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = [chunk.first(), chunk.get(1), chunk.get(2)]
            .into_iter()
            .fold(0_u32, |group, byte| group << 8 | u32::from(byte.copied().unwrap_or(0)));
        for place in 0..4 {
            let letter = LETTERS[(group >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= chunk.len() { letter as char } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{base64, columns};

    #[test]
    fn base64_of_all_lengths() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v")] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xff, 0xfe, 0xfd, 0xfc]), "//79/A==");
    }

    #[test]
    fn columns_stand_below_each_other() {
        let rows = [("TARGET", "DESCRIPTION"), ("a", ""), ("builder", "it builds")];
        let rows = rows.map(|(a, b)| vec![a.to_owned(), b.to_owned()]);
        assert_eq!(columns(&rows, 1), "TARGET  DESCRIPTION\na\nbuilder it builds\n");
    }
}
