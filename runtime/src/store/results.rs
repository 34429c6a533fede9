//! Results of steps by their two keys.
//!
//! The *definition key* is the digest of a node: a result found by it is right whatever its inputs
//! are. The second key is the digest of the operation without its inputs. Results found by that
//! are candidates: they hold what their inputs consisted of, so that the build can tell whether
//! the inputs of today have the same content.

use std::time::Duration;

use rbc_ir::Digest;
use rusqlite::{OptionalExtension, Row, params};

use super::{
    Held, LayerId, Result, Store,
    db::{digest_of, now},
    hold::Holds,
};

/// Adds the operation's digest and the inputs' content to results.
pub(super) const ADD_CONTENT_KEYS: &str = "
ALTER TABLE results ADD COLUMN operation BLOB;
ALTER TABLE results ADD COLUMN contents TEXT NOT NULL DEFAULT '';
CREATE INDEX results_by_operation ON results (operation, created);
";

/// How many candidates are looked at: the newest ones.
const MAX_CANDIDATES: i64 = 8;

/// What an input consisted of when a result was made from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InputContent {
    /// What the node with this digest stands for: a part of a context, or nothing at all.
    Pinned(Digest),
    /// Layers, lowest first.
    Layers(Vec<LayerId>),
}

/// A result as it is put into the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredResult {
    /// The layers, lowest first.
    pub layers: Vec<LayerId>,
    /// Digests of the input nodes with the identities of the results that were used.
    pub inputs: Vec<(Digest, Digest)>,
    /// Digest of the operation without its inputs.
    pub operation: Digest,
    /// What each input consisted of, in the order of the node's inputs.
    pub contents: Vec<InputContent>,
    /// Name of the step, for people.
    pub name: String,
    /// How long it took to make.
    pub elapsed: Duration,
}

/// A result as it is found in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedResult {
    /// Identity of this result: another run of the same node has another one.
    pub id: Digest,
    /// What was stored.
    pub stored: StoredResult,
}

/// What is known of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookUp {
    /// A result all of whose layers are there.
    Hit(CachedResult),
    /// The last result, which was evicted or lacks a layer.
    Lost(CachedResult),
    /// No result that can be read.
    Unknown,
}

/// Earlier results that may fit, and what keeps them from being evicted.
#[derive(Default)]
pub struct Candidates {
    results: Vec<CachedResult>,
    holds: Option<Holds>,
}

impl Candidates {
    /// Lets what they speak of be evicted: they are not looked into any more.
    ///
    /// # Errors
    /// If the locks cannot be given back.
    pub(crate) fn let_go(&self) -> Result<()> {
        self.holds.as_ref().map_or(Ok(()), Holds::let_go)
    }
}

impl std::ops::Deref for Candidates {
    type Target = [CachedResult];

    fn deref(&self) -> &[CachedResult] {
        &self.results
    }
}

const COLUMNS: &str = "id, layers, inputs, operation, contents, name, millis";

/// A row with [`COLUMNS`], as it is in the index.
struct Stored {
    id: Vec<u8>,
    layers: String,
    inputs: Vec<u8>,
    operation: Option<Vec<u8>>,
    contents: String,
    name: String,
    millis: i64,
}

impl Stored {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            layers: row.get(1)?,
            inputs: row.get(2)?,
            operation: row.get(3)?,
            contents: row.get(4)?,
            name: row.get(5)?,
            millis: row.get(6)?,
        })
    }

    /// What the row says; `None` if it cannot be read.
    fn decode(self) -> Option<CachedResult> {
        let operation = match self.operation {
            Some(bytes) => digest_of(&bytes)?,
            // Made before operations were recorded: no operation has this digest.
            None => Digest::from_bytes([0; 32]),
        };
        Some(CachedResult {
            id: digest_of(&self.id)?,
            stored: StoredResult {
                layers: split_layers(&self.layers)?,
                inputs: decode_pairs(&self.inputs)?,
                operation,
                contents: decode_contents(&self.contents)?,
                name: self.name,
                elapsed: Duration::from_millis(self.millis.unsigned_abs()),
            },
        })
    }
}

fn encode_pairs(pairs: &[(Digest, Digest)]) -> Vec<u8> {
    pairs.iter().flat_map(|(a, b)| [*a.as_bytes(), *b.as_bytes()]).flatten().collect()
}

fn decode_pairs(bytes: &[u8]) -> Option<Vec<(Digest, Digest)>> {
    let (pairs, []) = bytes.as_chunks::<64>() else { return None };
    pairs.iter().map(|p| Some((digest_of(&p[..32])?, digest_of(&p[32..])?))).collect()
}

fn join_layers(layers: &[LayerId]) -> String {
    layers.iter().map(LayerId::as_str).collect::<Vec<_>>().join(" ")
}

pub(super) fn split_layers(text: &str) -> Option<Vec<LayerId>> {
    text.split_ascii_whitespace().map(|id| id.parse().ok()).collect()
}

/// One line for each input: a digest, or `+` and layers.
fn encode_contents(contents: &[InputContent]) -> String {
    let lines = contents.iter().map(|content| match content {
        InputContent::Pinned(digest) => format!("{digest}\n"),
        InputContent::Layers(layers) => format!("+{}\n", join_layers(layers)),
    });
    lines.collect()
}

fn decode_contents(text: &str) -> Option<Vec<InputContent>> {
    text.lines()
        .map(|line| match line.strip_prefix('+') {
            Some(layers) => split_layers(layers).map(InputContent::Layers),
            None => line.parse().ok().map(InputContent::Pinned),
        })
        .collect()
}

/// The identity of a key's result: the digest of the key and of the layers.
pub(crate) fn result_id(key: &Digest, layers: &[LayerId]) -> Digest {
    let mut hasher = rbc_ir::Hasher::new("rbc.result");
    hasher.digest(key);
    for layer in layers {
        hasher.part(layer.as_str().as_bytes());
    }
    hasher.finish()
}

impl Store {
    /// All results by their keys whose layers are all there, in the order of the keys.
    pub(crate) fn all_results(&self) -> Result<Vec<(Digest, CachedResult)>> {
        let found: Vec<(Vec<u8>, Stored)> = {
            let connection = self.db.get();
            let mut query = connection.prepare(&format!(
                "SELECT {COLUMNS}, key FROM results WHERE evicted IS NULL ORDER BY key"
            ))?;
            let rows = query.query_map([], |row| Ok((row.get(7)?, Stored::read(row)?)))?;
            rows.collect::<std::result::Result<_, _>>()?
        };
        let whole =
            found.into_iter().filter_map(|(key, row)| Some((digest_of(&key)?, row.decode()?)));
        Ok(whole.filter(|(_, result)| self.has_layers(&result.stored.layers)).collect())
    }

    /// The cached result of a key, if all of its layers are there.
    pub fn result(&self, key: &Digest) -> Result<Option<CachedResult>> {
        Ok(match self.look_up(key)? {
            LookUp::Hit(result) => Some(result),
            LookUp::Lost(_) | LookUp::Unknown => None,
        })
    }

    /// What the index knows of a key, in one query.
    pub fn look_up(&self, key: &Digest) -> Result<LookUp> {
        let found: Option<(Stored, bool)> = self
            .db
            .get()
            .prepare_cached(&format!(
                "SELECT {COLUMNS}, evicted IS NULL FROM results WHERE key = ?1"
            ))?
            .query_row(params![key.as_bytes()], |row| Ok((Stored::read(row)?, row.get(7)?)))
            .optional()?;
        let decoded = found.and_then(|(row, is_kept)| Some((row.decode()?, is_kept)));
        Ok(match decoded {
            Some((result, true)) if self.has_layers(&result.stored.layers) => LookUp::Hit(result),
            Some((result, _)) => LookUp::Lost(result),
            None => LookUp::Unknown,
        })
    }

    /// Results of the same operation on any inputs whose layers are all there, newest first. All
    /// that they speak of stays there until they are dropped or let go of.
    pub fn results_of_operation(&self, operation: &Digest) -> Result<Candidates> {
        let found: Vec<Stored> = self
            .db
            .get()
            .prepare_cached(&format!(
                "SELECT {COLUMNS} FROM results
                 WHERE operation = ?1 AND evicted IS NULL
                 ORDER BY created DESC LIMIT {MAX_CANDIDATES}"
            ))?
            .query_map(params![operation.as_bytes()], Stored::read)?
            .collect::<std::result::Result<_, _>>()?;
        if found.is_empty() {
            return Ok(Candidates::default());
        }
        let holds = self.holds.apart()?;
        let mut results = Vec::new();
        for result in found.into_iter().filter_map(Stored::decode) {
            let contents = result.stored.contents.iter().flat_map(|content| match content {
                InputContent::Layers(layers) => layers.as_slice(),
                InputContent::Pinned(_) => &[],
            });
            for layer in result.stored.layers.iter().chain(contents) {
                holds.hold(Held::Layer(layer))?;
            }
            if result.stored.layers.iter().all(|id| self.peek_layer(id)) {
                results.push(result);
            }
        }
        Ok(Candidates { results, holds: Some(holds) })
    }

    /// How many milliseconds the latest run of an operation took, on whatever inputs.
    pub fn last_millis(&self, operation: &Digest) -> Result<Option<u64>> {
        let millis: Option<i64> = self
            .db
            .get()
            .prepare_cached(
                "SELECT millis FROM results WHERE operation = ?1 ORDER BY created DESC LIMIT 1",
            )?
            .query_row(params![operation.as_bytes()], |row| row.get(0))
            .optional()?;
        Ok(millis.map(i64::unsigned_abs))
    }

    /// Whether all of the layers are in the store.
    pub fn has_layers(&self, layers: &[LayerId]) -> bool {
        layers.iter().all(|id| self.has_layer(id))
    }

    /// Puts a result into the cache in place of an older one of the same key, and gives it its
    /// identity: the digest of its layers and of the inputs it was made from.
    pub fn put_result(&self, key: &Digest, stored: StoredResult) -> Result<CachedResult> {
        let id = result_id(key, &stored.layers);
        for layer in &stored.layers {
            self.holds.hold(Held::Layer(layer))?;
        }
        self.db
            .get()
            .prepare_cached(
                "INSERT OR REPLACE INTO results
                     (key, id, layers, inputs, operation, contents, name, millis, created, last_used)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?9)",
            )?
            .execute(params![
                key.as_bytes(),
                id.as_bytes(),
                join_layers(&stored.layers),
                encode_pairs(&stored.inputs),
                stored.operation.as_bytes(),
                encode_contents(&stored.contents),
                stored.name,
                stored.elapsed.as_millis() as i64,
                now(),
            ])?;
        Ok(CachedResult { id, stored })
    }

    /// Notes that cached results were used, for the order of eviction.
    pub fn touch_results(&self, keys: &[Digest]) -> Result<()> {
        let mut connection = self.db.get();
        let transaction = connection.transaction()?;
        for key in keys {
            transaction
                .prepare_cached("UPDATE results SET last_used = ?2 WHERE key = ?1")?
                .execute(params![key.as_bytes(), now()])?;
        }
        transaction.commit()?;
        Ok(())
    }
}
