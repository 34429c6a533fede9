//! What takes how much space, as the index knows it without a look at the disk.
//!
//! Every published layer and every blob has a row, so that the whole is one sum. A file that several
//! layers share by links belongs to the one that had it first. When that is evicted before the
//! others, its files stay: the difference is kept as a row of its own, so that the sum stays true
//! whatever is evicted in which order. What a killed process did not note is made up for by
//! [`Store::complete_space`].

use std::collections::{HashMap, HashSet};

use rbc_ir::Digest;
use rusqlite::params;

use super::{LayerId, Result, Store, db::Db};
use crate::layer::Usage;

/// Adds when a result was evicted. A result that was evicted stays as a row, so that a build can say
/// why it misses.
pub(super) const ADD_EVICTED: &str = "
ALTER TABLE results ADD COLUMN evicted INTEGER;
CREATE TABLE space (item TEXT PRIMARY KEY, bytes INTEGER NOT NULL) WITHOUT ROWID;
";

/// Adds the kind to what takes space.
pub(super) const ADD_KIND: &str = "
DROP TABLE space;
CREATE TABLE space (
    item TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    bytes INTEGER NOT NULL
) WITHOUT ROWID;
";

/// What made a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LayerKind {
    /// An instruction.
    Step,
    /// It was unpacked from an image.
    Image,
    /// It is a part of a build context.
    Context,
    /// It was checked out from a git repository.
    Git,
    /// It was downloaded.
    Http,
}

impl LayerKind {
    const ALL: [Self; 5] = [Self::Step, Self::Image, Self::Context, Self::Git, Self::Http];

    fn name(self) -> &'static str {
        match self {
            Self::Step => "step",
            Self::Image => "image",
            Self::Context => "context",
            Self::Git => "git",
            Self::Http => "http",
        }
    }
}

/// What has a row.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SpaceItem<'a> {
    Layer(&'a LayerId),
    Blob(&'a Digest),
    /// A folder of `mounts/` by its name.
    CacheMount(&'a str),
}

/// A row.
pub(crate) struct Noted {
    /// What made a layer.
    pub kind: Option<LayerKind>,
    /// Bytes on disk.
    pub bytes: u64,
}

impl SpaceItem<'_> {
    /// What it is called in the index.
    pub(crate) fn key(self) -> String {
        match self {
            Self::Layer(id) => format!("layer {id}"),
            Self::Blob(digest) => format!("blob {}", digest.hex()),
            Self::CacheMount(name) => format!("mount {name}"),
        }
    }
}

/// Files of layers that are gone, shared with layers that are not.
const SHARED: &str = "shared";

impl Db {
    /// Notes what something takes.
    pub(super) fn put_space(&self, item: SpaceItem<'_>, kind: &str, bytes: u64) -> Result<()> {
        self.get()
            .prepare_cached("INSERT OR REPLACE INTO space (item, kind, bytes) VALUES (?1, ?2, ?3)")?
            .execute(params![item.key(), kind, bytes.cast_signed()])?;
        Ok(())
    }

    /// Notes that something is gone, by which `freed` bytes came free.
    pub(super) fn drop_space(&self, item: SpaceItem<'_>, freed: u64) -> Result<()> {
        let mut connection = self.get();
        let transaction = connection.transaction()?;
        let noted: i64 = transaction
            .prepare_cached("DELETE FROM space WHERE item = ?1 RETURNING bytes")?
            .query_map(params![item.key()], |row| row.get::<_, i64>(0))?
            .sum::<std::result::Result<i64, _>>()?;
        let rest = noted - freed.cast_signed();
        if matches!(item, SpaceItem::Layer(_)) && rest != 0 {
            transaction
                .prepare_cached(
                    "INSERT INTO space (item, kind, bytes) VALUES (?1, '', ?2)
                     ON CONFLICT (item) DO UPDATE SET bytes = bytes + excluded.bytes",
                )?
                .execute(params![SHARED, rest])?;
        }
        transaction.commit()?;
        Ok(())
    }
}

impl Store {
    /// Notes what a layer takes.
    pub(crate) fn put_layer_space(&self, id: &LayerId, kind: LayerKind, bytes: u64) -> Result<()> {
        self.db.put_space(SpaceItem::Layer(id), kind.name(), bytes)
    }

    /// Notes what something else than a layer takes.
    pub(crate) fn put_other_space(&self, item: SpaceItem<'_>, bytes: u64) -> Result<()> {
        self.db.put_space(item, "", bytes)
    }

    /// Notes that something is gone, by which `freed` bytes came free.
    pub(crate) fn drop_space(&self, item: SpaceItem<'_>, freed: u64) -> Result<()> {
        self.db.drop_space(item, freed)
    }

    /// Bytes that layers, blobs and cache mounts take together.
    pub fn space(&self) -> Result<u64> {
        let sum: i64 = self
            .db
            .get()
            .prepare_cached("SELECT total(bytes) FROM space")?
            .query_row([], |row| Ok(row.get::<_, f64>(0)? as i64))?;
        Ok(u64::try_from(sum).unwrap_or(0))
    }

    /// All rows by [`SpaceItem::key`].
    pub(crate) fn noted_space(&self) -> Result<HashMap<String, Noted>> {
        let connection = self.db.get();
        let mut query = connection.prepare("SELECT item, kind, bytes FROM space")?;
        let rows = query.query_map([], |row| {
            let kind: String = row.get(1)?;
            let noted = Noted {
                kind: LayerKind::ALL.into_iter().find(|known| known.name() == kind),
                bytes: u64::try_from(row.get::<_, i64>(2)?).unwrap_or(0),
            };
            Ok((row.get(0)?, noted))
        })?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }

    /// Replaces all rows by what was measured. `shared` is what no single layer owns.
    pub(crate) fn set_space(&self, measured: &[(SpaceItem<'_>, u64)], shared: u64) -> Result<()> {
        let mut connection = self.db.get();
        let transaction = connection.transaction()?;
        {
            let mut update = transaction.prepare(
                "INSERT INTO space (item, kind, bytes) VALUES (?1, '', ?2)
                 ON CONFLICT (item) DO UPDATE SET bytes = excluded.bytes",
            )?;
            for (item, bytes) in measured {
                update.execute(params![item.key(), bytes.cast_signed()])?;
            }
            update.execute(params![SHARED, shared.cast_signed()])?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// Measures what is there without a row, and drops rows of what is not there: what processes
    /// that were killed did not note, and state folders of older versions lack.
    pub(crate) fn complete_space(&self) -> Result<()> {
        // Rows are read first: whoever publishes makes the row after the thing.
        let rows: HashSet<String> = {
            let connection = self.db.get();
            let mut query = connection.prepare("SELECT item FROM space")?;
            let rows = query.query_map([], |row| row.get(0))?;
            rows.collect::<std::result::Result<_, _>>()?
        };
        let mut there = HashSet::new();
        for id in self.list_layers()?.0 {
            let item = SpaceItem::Layer(&id);
            // What cannot be measured has been evicted in the meantime.
            if !rows.contains(&item.key())
                && let Ok(usage) = Usage::of(&self.layer_dir(&id))
            {
                self.put_layer_space(&id, id.usual_kind(), usage.own())?;
            }
            there.insert(item.key());
        }
        for (digest, size) in self.blobs().list()? {
            let item = SpaceItem::Blob(&digest);
            if !rows.contains(&item.key()) {
                self.put_other_space(item, size)?;
            }
            there.insert(item.key());
        }
        for name in self.cache_mounts()? {
            let item = SpaceItem::CacheMount(&name);
            if !rows.contains(&item.key())
                && let Ok(usage) = Usage::of(&self.cache_mount_dir(&name))
            {
                self.put_other_space(item, usage.own())?;
            }
            there.insert(item.key());
        }
        let connection = self.db.get();
        let mut delete = connection.prepare("DELETE FROM space WHERE item = ?1")?;
        for gone in rows.iter().filter(|row| !there.contains(*row) && *row != SHARED) {
            delete.execute(params![gone])?;
        }
        Ok(())
    }
}

impl LayerId {
    /// What made a layer of which only the name is known.
    pub(super) fn usual_kind(&self) -> LayerKind {
        if self.is_of_image() { LayerKind::Image } else { LayerKind::Step }
    }
}
