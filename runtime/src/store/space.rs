//! What takes how much space, as the index knows it without a look at the disk.

/// Adds when a result was evicted, and what takes space.
///
/// A result that was evicted stays as a row, so that a build can say why it misses.
pub(super) const SCHEMA: &str = "
ALTER TABLE results ADD COLUMN evicted INTEGER;
CREATE TABLE space (
    item TEXT PRIMARY KEY,
    bytes INTEGER NOT NULL
) WITHOUT ROWID;
";
