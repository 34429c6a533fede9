//! The options of the commands that look at past builds.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::ListFormat;

pub const LOGS_EXAMPLES: &str = "\
Examples:
  rbc logs               all that the last build's steps printed
  rbc logs 3             step #3 of the last build
  rbc logs ~1 'RUN make'
  rbc logs 20260102-0304 3

A BUILD is named by the beginning of its name in `rbc history`, or as ~N: ~0 is the last build, ~1 the
one before.";

/// `rbc history`.
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// How many builds to list, from the newest
    #[arg(short = 'n', long, value_name = "N")]
    pub limit: Option<usize>,
    /// Print only names
    #[arg(short, long)]
    pub quiet: bool,
    /// Form of the list
    #[arg(long, value_enum, default_value_t)]
    pub format: ListFormat,
}

/// `rbc logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// The build; the last one if missing
    #[arg(value_name = "BUILD")]
    pub build: Option<String>,
    /// Number of the step in the progress view, or a part of its name; all steps if missing
    #[arg(value_name = "STEP")]
    pub step: Option<String>,
}

pub const EXPLAIN_EXAMPLES: &str = "\
Examples:
  rbc explain                        why the steps of the last build ran
  rbc explain ~1 --format json
  rbc explain --graph old.bin new.bin

A BUILD is named by the beginning of its name in `rbc history`, or as ~N: ~0 is the last build, ~1 the
one before. It is compared with the newest earlier build of the same Dockerfile and target.";

/// `rbc explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The build; the last one if missing
    #[arg(value_name = "BUILD", conflicts_with = "graph")]
    pub build: Option<String>,
    /// Explain how one graph differs from another instead
    #[arg(long, num_args = 2, value_names = ["OLD", "NEW"])]
    pub graph: Vec<PathBuf>,
    /// Form of the answer
    #[arg(long, value_enum, default_value_t)]
    pub format: ReportFormat,
}

/// `rbc diff`.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// File with the old graph
    pub old: PathBuf,
    /// File with the new graph
    pub new: PathBuf,
    /// Exit with 1 if the graphs differ
    #[arg(long)]
    pub exit_code: bool,
    /// Form of the answer
    #[arg(long, value_enum, default_value_t)]
    pub format: ReportFormat,
}

/// Forms of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// Lines for people
    #[default]
    Text,
    /// One JSON object
    Json,
}

pub const REPORT_EXAMPLES: &str = "\
Examples:
  rbc report                         a page about the last build, in report.html
  rbc report ~1 -o - > page.html

A BUILD is named by the beginning of its name in `rbc history`, or as ~N: ~0 is the last build, ~1 the
one before.";

/// `rbc report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// The build; the last one if missing
    #[arg(value_name = "BUILD")]
    pub build: Option<String>,
    /// File to write; `-` is standard output
    #[arg(short, long, value_name = "FILE", default_value = "report.html")]
    pub output: PathBuf,
}
