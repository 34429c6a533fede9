//! Upkeep of the state folder: checking it (`rbc fsck`).
//!
//! Everything here works beside running builds and takes nothing that one of them holds.

mod check;

pub use check::{CheckMode, Checked, Finding, Kind, Repair, Report, check};
