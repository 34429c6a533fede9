//! The options of the commands that look after the state folder.

use clap::Args;

use super::ListFormat;

pub const FSCK_EXAMPLES: &str = "\
Examples:
  rbc fsck
  rbc fsck --check --format json

What is dropped is made or fetched again when it is needed. Running builds are not disturbed.";

/// `rbc fsck`.
#[derive(Debug, Args)]
pub struct FsckArgs {
    /// Change nothing; exit with 1 if something is bad
    #[arg(long)]
    pub check: bool,
    /// Form of the report
    #[arg(long, value_enum, default_value_t)]
    pub format: ListFormat,
}
