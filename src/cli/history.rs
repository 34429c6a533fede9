//! The options of the commands that look at past builds.

use clap::Args;

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
