//! `rbc history` and `rbc logs`: past builds from their records.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, IsTerminal, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, bail};
use rbc_runtime::{
    history::{Builds, Record, Status, StepRecord},
    store::Store,
};

use super::{Outcome, report};
use crate::{
    cli::{HistoryArgs, ListFormat, LogsArgs},
    inspect::clean,
    render::{Colours, no_colours, printable},
};

pub fn list(store: &Store, args: &HistoryArgs) -> Outcome {
    let builds = Builds::of(store);
    let ids = builds.all_ids()?;
    let mut out = io::stdout().lock();
    let mut table = vec![
        ["BUILD", "BEGAN", "TOOK", "STATUS", "CACHED", "RAN", "FAILED", "WHAT"].map(str::to_owned),
    ];
    for id in ids.iter().take(args.limit.unwrap_or(usize::MAX)) {
        if args.quiet {
            writeln!(out, "{id}")?;
            continue;
        }
        let record = match builds.record(id) {
            Ok(record) => record,
            Err(error) => {
                report::tell(&format!("warning: {error}"));
                continue;
            }
        };
        match args.format {
            ListFormat::Json => writeln!(out, "{}", summary(&record))?,
            ListFormat::Table => table.push([
                record.id.clone(),
                ago(record.begun_ms),
                match record.status {
                    Status::Running => seconds(now_ms().saturating_sub(record.begun_ms)),
                    Status::Killed => "?".to_owned(),
                    _ => seconds(record.millis),
                },
                word(record.status).to_owned(),
                record.cached().to_string(),
                record.ran().to_string(),
                record.failed().to_string(),
                what(&record),
            ]),
        }
    }
    if args.quiet || args.format == ListFormat::Json {
        return Ok(());
    }
    let width =
        |column: usize| table.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..table[0].len()).map(width).collect();
    for row in &table {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}   "));
        writeln!(out, "{}", cells.collect::<String>().trim_end())?;
    }
    Ok(())
}

/// A build in one JSON object.
fn summary(record: &Record) -> serde_json::Value {
    serde_json::json!({
        "id": record.id,
        "begun_ms": record.begun_ms,
        "millis": record.millis,
        "status": record.status,
        "error": record.error,
        "dockerfile": record.subject.dockerfile,
        "context": record.subject.context,
        "targets": record.subject.targets,
        "platforms": record.subject.platforms,
        "tags": record.tags,
        "cached": record.cached(),
        "ran": record.ran(),
        "failed": record.failed(),
        "first_miss": record.first_miss,
    })
}

/// What was built, for people.
fn what(record: &Record) -> String {
    let mut text = record.subject.dockerfile.clone();
    for target in record.subject.targets.iter().filter(|target| !target.is_empty()) {
        text.push_str(&format!(" --target {target}"));
    }
    for tag in &record.tags {
        text.push_str(&format!(" -t {tag}"));
    }
    clean(&text)
}

pub fn word(status: Status) -> &'static str {
    match status {
        Status::Succeeded => "succeeded",
        Status::Failed => "failed",
        Status::Cancelled => "cancelled",
        Status::Running => "running",
        Status::Killed => "killed",
    }
}

/// Milliseconds since the epoch.
fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// A time in words, from now.
fn ago(ms: u64) -> String {
    let seconds = now_ms().saturating_sub(ms) / 1000;
    let (count, unit) = match seconds {
        0..120 => (seconds, "second"),
        120..7200 => (seconds / 60, "minute"),
        7200..172_800 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{} ago", if count == 1 { "" } else { "s" })
}

pub fn seconds(ms: u64) -> String {
    format!("{}.{}s", ms / 1000, ms % 1000 / 100)
}

/// The build that is named, or the last one.
pub fn chosen(builds: &Builds<'_>, name: Option<&str>) -> anyhow::Result<String> {
    Ok(builds.find(name.unwrap_or("~0"))?)
}

pub fn logs(store: &Store, args: &LogsArgs) -> Outcome {
    let builds = Builds::of(store);
    let (build, step) = match (args.build.as_deref(), args.step.as_deref()) {
        // A single argument that can only be a step is one of the last build.
        (Some(one), None) if is_step(&builds, one) => (None, Some(one)),
        both => both,
    };
    let record = builds.record(&builds.find_any(build.unwrap_or("~0"))?)?;
    let mut out = io::stdout().lock();
    let Some(step) = step else {
        for step in &record.steps {
            let Some(log) = log_path(&builds, &record, step) else { continue };
            let number = step.number.map(|number| format!("#{number} ")).unwrap_or_default();
            writeln!(out, "{number}{}", clean(&step.name))?;
            copy(&log, &mut out)?;
            end_line(&log, &mut out)?;
        }
        return Ok(());
    };
    let step = find(&record, step)?;
    let Some(log) = log_path(&builds, &record, step) else {
        let name = clean(&step.name);
        return Err(anyhow::anyhow!("{name} ran no command in build {}", record.id).into());
    };
    copy(&log, &mut out)?;
    Ok(())
}

fn is_step(builds: &Builds<'_>, argument: &str) -> bool {
    let is_number = argument.len() <= 5 && argument.bytes().all(|b| b.is_ascii_digit());
    is_number || (!argument.starts_with('~') && builds.find_any(argument).is_err())
}

/// The step with a number, or the only one whose name holds a text.
fn find<'a>(record: &'a Record, wanted: &str) -> anyhow::Result<&'a StepRecord> {
    let mut steps = record.steps.iter().filter(|step| step.number.is_some());
    if let Ok(number) = wanted.parse::<usize>() {
        return steps
            .find(|step| step.number == Some(number))
            .with_context(|| format!("build {} has no step #{number}", record.id));
    }
    let found: Vec<&StepRecord> = steps.filter(|step| step.name.contains(wanted)).collect();
    match found.as_slice() {
        [step] => Ok(step),
        [] => bail!("build {} has no step with {wanted:?} in its name", record.id),
        several => {
            let names: Vec<String> = several
                .iter()
                .map(|step| format!("#{} {}", step.number.unwrap_or_default(), clean(&step.name)))
                .collect();
            bail!("several steps have {wanted:?} in their names:\n  {}", names.join("\n  "))
        }
    }
}

/// Where the log of a step is, if it ran a command.
fn log_path(builds: &Builds<'_>, record: &Record, step: &StepRecord) -> Option<PathBuf> {
    Some(builds.log_dir(&record.id).join(step.log.as_ref()?))
}

fn copy(path: &Path, out: &mut (impl Write + IsTerminal)) -> anyhow::Result<()> {
    match File::open(path) {
        // A step that prints nothing has no log.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e).with_context(|| format!("cannot read {}", path.display())),
        Ok(file) if out.is_terminal() => show(file, out),
        Ok(mut file) => {
            io::copy(&mut file, out)?;
            Ok(())
        }
    }
}

/// Ends the last line of a log, so that what follows is not taken for a part of it.
fn end_line(path: &Path, out: &mut (impl Write + IsTerminal)) -> anyhow::Result<()> {
    let mut last = [b'\n'];
    if let Ok(mut file) = File::open(path)
        && file.seek(SeekFrom::End(-1)).is_ok()
    {
        file.read_exact(&mut last)?;
    }
    if last != [b'\n'] && !out.is_terminal() {
        writeln!(out)?;
    }
    Ok(())
}

/// Shows a log on a terminal, which it must not control.
fn show(log: File, out: &mut impl Write) -> anyhow::Result<()> {
    /// Longer lines are shown as several.
    const MAX_LINE: u64 = 1 << 20;
    let colours = if no_colours() { Colours::Drop } else { Colours::Keep };
    let mut log = BufReader::new(log);
    loop {
        let mut line = Vec::new();
        if log.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        writeln!(out, "{}", printable(&String::from_utf8_lossy(&line), colours))?;
    }
}
