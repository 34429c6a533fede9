//! Which repositories of registries are known to hold a blob, so that a push to another repository
//! of the same registry need not send it again.

use rbc_ir::Digest;
use rusqlite::params;

use super::{Result, Store, db::now};

pub(super) const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS blob_places (
    digest BLOB NOT NULL,
    domain TEXT NOT NULL,
    repository TEXT NOT NULL,
    seen INTEGER NOT NULL,
    PRIMARY KEY (digest, domain, repository)
) WITHOUT ROWID;
";

/// Registries clean up too: after this many seconds a place is not believed in any more.
const LIFE: i64 = 90 * 24 * 3600;

impl Store {
    /// Notes that a registry's repository has, or had a moment ago, a blob.
    pub fn note_blob_place(&self, digest: &Digest, domain: &str, repository: &str) -> Result<()> {
        let connection = self.db.get();
        connection
            .prepare_cached(
                "INSERT OR REPLACE INTO blob_places (digest, domain, repository, seen)
                 VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![digest.as_bytes(), domain, repository, now()])?;
        connection
            .prepare_cached("DELETE FROM blob_places WHERE seen < ?1")?
            .execute(params![now() - LIFE])?;
        Ok(())
    }

    /// The repositories of a registry that are known to have a blob, the latest first.
    pub fn blob_places(&self, digest: &Digest, domain: &str) -> Result<Vec<String>> {
        let connection = self.db.get();
        let mut query = connection.prepare_cached(
            "SELECT repository FROM blob_places WHERE digest = ?1 AND domain = ?2
             ORDER BY seen DESC, repository",
        )?;
        let rows = query.query_map(params![digest.as_bytes(), domain], |row| row.get(0))?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_kept_by_registry() {
        let dir = tempfile::tempdir().expect("folder");
        let store = Store::open(dir.path()).expect("store");
        let blob = Digest::of(b"blob");
        let note = |domain, repository| {
            store.note_blob_place(&blob, domain, repository).expect("noted");
        };
        note("h", "b");
        note("h", "a");
        note("h", "a");
        note("i", "c");
        assert_eq!(store.blob_places(&blob, "h").expect("read"), ["a", "b"]);
        assert_eq!(store.blob_places(&blob, "j").expect("read"), [""; 0]);
        assert_eq!(store.blob_places(&Digest::of(b"x"), "h").expect("read"), [""; 0]);
    }
}
