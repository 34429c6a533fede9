//! A damaged index: what can be read of it becomes a new one.
//!
//! Whatever is lost is only what the index alone knows: names of images and containers, and results,
//! which are made again. The damaged file is kept beside the new one.

use std::{fs, path::Path};

use rusqlite::{Connection, ErrorCode, OpenFlags, params_from_iter, types::Value};

use super::{Result, StoreError, db::Db};

/// Tables whose rows are saved.
const TABLES: [&str; 7] =
    ["images", "containers", "results", "layers", "layer_blobs", "blob_places", "space"];

/// What is wrong with the index, if it is damaged.
pub(super) fn fault(path: &Path) -> Result<Option<String>> {
    if !path.exists() {
        return Ok(None);
    }
    let look = || -> rusqlite::Result<String> {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
    };
    match look() {
        Ok(text) if text == "ok" => Ok(None),
        Ok(text) => Ok(Some(text.replace('\n', " "))),
        Err(error) if is_damage(&error) => Ok(Some(error.to_string())),
        Err(error) => Err(error.into()),
    }
}

/// Whether an error says that the file is damaged.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// Puts a new index with all rows that can be read in the place of a damaged one, which is renamed.
/// Gives how many rows were saved.
pub(super) fn rebuild(path: &Path) -> Result<usize> {
    let beside = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        std::path::PathBuf::from(name)
    };
    let (fresh, damaged) = (beside(".new"), beside(".damaged"));
    for suffix in ["", "-wal", "-shm"] {
        let mut name = fresh.as_os_str().to_owned();
        name.push(suffix);
        // What an earlier attempt was killed over.
        let _ = fs::remove_file(name);
    }
    let new = Db::open(&fresh)?;
    let mut saved = 0;
    if let Ok(old) = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE) {
        let new = new.get();
        for table in TABLES {
            // Two ways around a damaged place in the middle.
            for order in ["", " ORDER BY 1 DESC"] {
                saved += copy_rows(&old, &new, table, order).unwrap_or(0);
            }
        }
    }
    drop(new);
    let renamed = |from: &Path, to: &Path| {
        fs::rename(from, to).map_err(StoreError::io("cannot rename", from))
    };
    renamed(path, &damaged)?;
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(beside(suffix));
    }
    renamed(&fresh, path)?;
    Ok(saved)
}

/// Copies rows until one cannot be read; those that are there already are passed over.
fn copy_rows(
    old: &Connection,
    new: &Connection,
    table: &str,
    order: &str,
) -> rusqlite::Result<usize> {
    let mut columns: Vec<String> = Vec::new();
    let mut query = new.prepare(&format!("SELECT name FROM pragma_table_info('{table}')"))?;
    for name in query.query_map([], |row| row.get(0))? {
        columns.push(name?);
    }
    let places = vec!["?"; columns.len()].join(", ");
    let columns = columns.join(", ");
    let mut insert =
        new.prepare(&format!("INSERT OR IGNORE INTO {table} ({columns}) VALUES ({places})"))?;
    let mut select = old.prepare(&format!("SELECT {columns} FROM {table}{order}"))?;
    let width = select.column_count();
    let mut rows = select.query([])?;
    let mut saved = 0;
    while let Ok(Some(row)) = rows.next() {
        let values = (0..width).map(|at| row.get::<_, Value>(at)).collect::<Result<Vec<_>, _>>();
        let Ok(values) = values else { continue };
        saved += insert.execute(params_from_iter(values)).unwrap_or(0);
    }
    Ok(saved)
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, SeekFrom, Write};

    use rbc_ir::Digest;

    use super::*;
    use crate::store::Store;

    /// An index of many pages, closed.
    fn filled() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("folder");
        let store = Store::open(dir.path()).expect("store");
        for n in 0..2000 {
            store.put_image(&format!("image-{n:04}"), &Digest::of(b"x")).expect("named");
        }
        dir
    }

    fn overwrite(dir: &tempfile::TempDir, from: u64, bytes: usize) {
        let mut file =
            fs::File::options().write(true).open(dir.path().join("index.db")).expect("index");
        file.seek(SeekFrom::Start(from)).expect("seek");
        file.write_all(&vec![0xa5; bytes]).expect("written");
    }

    #[test]
    fn rows_around_a_damaged_place_are_saved() {
        let dir = filled();
        overwrite(&dir, 20 * 4096, 4096);
        let store = Store::open_to_repair(dir.path()).expect("opened");
        assert!(store.salvaged().is_some());
        let images = store.images().expect("images").len();
        assert!((1000..2000).contains(&images), "{images}");
        assert!(dir.path().join("index.db.damaged").exists());
        drop(store);
        assert!(Store::open_to_repair(dir.path()).expect("opened").salvaged().is_none());
    }

    #[test]
    fn a_file_that_is_no_index_gives_an_empty_one() {
        let dir = filled();
        overwrite(&dir, 0, 100);
        assert!(Store::open(dir.path()).is_err());
        let store = Store::open_to_repair(dir.path()).expect("opened");
        assert!(store.salvaged().is_some() && store.images().expect("images").is_empty());
    }
}
