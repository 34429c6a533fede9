//! The local contexts of a build: opened once, hashed through a stat index, checked against what
//! the graph pins.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use rbc_ir::{ContextSource, Digest, Selection};

use crate::{
    store::{Store, TmpDir},
    tree::{
        ContentHashes, ContextTree, Entry, SelectedPart, SourceTree, StatIndex, TreeError,
        is_unchanged, selection_digest, selection_listing,
    },
};

use super::schedule::on_cpu_pool;

/// Why a local context cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContextError {
    /// The graph needs a context that was not given.
    #[error("the graph needs the build context {0:?}: give it with --build-context {0}=DIR")]
    NotGiven(String),
    /// The files are not those that the graph was compiled from.
    #[error(
        "{what} in {path} is not what the graph was compiled from (expected {expected}, found {actual}): \
         compile again, or give the folder that it was compiled from with --context"
    )]
    Differs {
        /// What was selected, for people.
        what: String,
        /// The context's folder.
        path: PathBuf,
        /// Digest in the graph.
        expected: Digest,
        /// Digest of what is there.
        actual: Digest,
    },
    /// Files changed while they were being copied.
    #[error("{what} in {path} changed while it was being copied: run the build again")]
    Changed {
        /// What was selected, for people.
        what: String,
        /// The context's folder.
        path: PathBuf,
    },
    /// The context cannot be read.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// The local contexts of a build by name; the main build context has the empty name.
pub struct Contexts {
    contexts: HashMap<String, Context>,
    /// Folders that were made for a context.
    held: Vec<TmpDir>,
    /// Digests that were found to hold in this process.
    checked: Mutex<HashMap<(String, Selection), Digest>>,
    /// What the digests were made from, as far as there is room.
    listings: Mutex<Listings>,
}

/// More entries than this are not kept in memory: a build of so many files is not explained by
/// file.
const MAX_LISTED: usize = 500_000;

/// What was read of contexts.
#[derive(Default)]
struct Listings {
    /// Any that have the digest.
    parts: HashMap<Digest, Arc<Vec<SelectedPart>>>,
    /// By context and selection.
    by_selection: HashMap<(String, Selection), Arc<Vec<SelectedPart>>>,
    entries: usize,
}

struct Context {
    path: PathBuf,
    ignore: Vec<String>,
    index_path: PathBuf,
    open: OnceLock<Open>,
}

struct Open {
    tree: ContextTree,
    index: StatIndex,
}

impl Contexts {
    /// No contexts.
    pub fn new() -> Self {
        Self {
            contexts: HashMap::new(),
            held: Vec::new(),
            checked: Mutex::default(),
            listings: Mutex::default(),
        }
    }

    /// Adds the folder `path` as the context `name`, less what `ignore` (Docker patterns) hides.
    /// Nothing is read before it is needed.
    pub fn add(&mut self, store: &Store, name: &str, path: PathBuf, ignore: Vec<String>) {
        let absolute = path.canonicalize().unwrap_or_else(|_| path.clone());
        // What is known of a folder that was made for this build is of no use to the next.
        let index_path = if absolute.starts_with(store.root().join("tmp")) {
            absolute.with_extension("index")
        } else {
            store.stat_index_path(&absolute)
        };
        let context = Context { path, ignore, index_path, open: OnceLock::new() };
        self.contexts.insert(name.to_owned(), context);
    }

    /// Keeps a folder that was made for a context until the build is over.
    pub fn hold(&mut self, dir: TmpDir) {
        self.held.push(dir);
    }

    /// For the end of a process: removes what was held, and leaves the memory to the system, which
    /// takes all of it back at once.
    pub fn leave(mut self) {
        self.held.clear();
        std::mem::forget(self);
    }

    /// The folder of a context.
    pub fn path(&self, name: &str) -> Option<&Path> {
        self.contexts.get(name).map(|context| context.path.as_path())
    }

    /// The files of a context.
    pub fn tree(&self, name: &str) -> Result<&dyn SourceTree, ContextError> {
        Ok(&self.open(name)?.tree)
    }

    /// The pattern of a context's ignore file that hides a path at which there is something.
    pub fn hidden_by(&self, name: &str, path: &Path) -> Option<String> {
        let tree = &self.open(name).ok()?.tree;
        tree.is_there(path).then(|| tree.hidden_by(path).map(str::to_owned))?
    }

    /// Merkle digest of what `selection` takes from a context.
    pub fn digest(&self, name: &str, selection: &Selection) -> Result<Digest, ContextError> {
        let key = (name.to_owned(), selection.clone());
        if let Some(known) = self.checked().get(&key) {
            return Ok(*known);
        }
        let open = self.open(name)?;
        let list = || selection_listing(&open.tree, selection, &open.index);
        // The index is not needed before the folders are read.
        let (digest, parts) = on_cpu_pool(|| rayon::join(|| open.index.read(), list).1)?;
        self.checked().insert(key.clone(), digest);
        let mut listings = self.listings();
        let entries: usize = parts.iter().map(SelectedPart::len).sum();
        if listings.entries + entries <= MAX_LISTED {
            let parts = Arc::new(parts);
            listings.entries += entries;
            listings.parts.insert(digest, Arc::clone(&parts));
            listings.by_selection.insert(key, parts);
        }
        Ok(digest)
    }

    /// What a digest that this process has made was made from.
    pub(crate) fn listing<T>(
        &self,
        digest: &Digest,
        look: impl FnOnce(&[SelectedPart]) -> T,
    ) -> Option<T> {
        let parts = self.listings().parts.get(digest).cloned();
        parts.map(|parts| look(&parts))
    }

    fn listings(&self) -> MutexGuard<'_, Listings> {
        self.listings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks that a context holds what the graph pins.
    pub(super) fn check(&self, source: &ContextSource) -> Result<(), ContextError> {
        let actual = self.digest(&source.name, &source.selection)?;
        if actual == source.digest {
            return Ok(());
        }
        Err(ContextError::Differs {
            what: describe(&source.selection),
            path: self.path(&source.name).map(Path::to_owned).unwrap_or_default(),
            expected: source.digest,
            actual,
        })
    }

    /// Checks once more, after the files were read: what was copied is what was pinned only if
    /// nothing changed in between.
    pub(super) fn check_again(&self, source: &ContextSource) -> Result<(), ContextError> {
        let changed = || ContextError::Changed {
            what: describe(&source.selection),
            path: self.path(&source.name).map(Path::to_owned).unwrap_or_default(),
        };
        match self.still_holds(source) {
            Ok(true) => Ok(()),
            Ok(false)
            | Err(ContextError::Tree(TreeError::NotFound(..) | TreeError::Changed(_))) => {
                Err(changed())
            }
            Err(error) => Err(error),
        }
    }

    /// The digest of a file of a context's folder that is known to hold for these facts.
    pub(super) fn digest_of(&self, name: &str, entry: &Entry) -> Option<Digest> {
        self.contexts.get(name)?.open.get()?.index.get(entry)
    }

    /// Keeps what was hashed for the next build. Failing to costs time, not correctness.
    pub fn save(&self) {
        for context in self.contexts.values() {
            if let Some(open) = context.open.get() {
                let _ = open.index.save(&context.index_path);
            }
        }
    }

    /// Whether the files of a context that was checked are what they were. Which there are is the
    /// same all through a build, so each is compared with what was read of it.
    fn still_holds(&self, source: &ContextSource) -> Result<bool, ContextError> {
        let open = self.open(&source.name)?;
        // Files elsewhere may have the same digest.
        let key = (source.name.clone(), source.selection.clone());
        let parts = self.listings().by_selection.get(&key).cloned();
        let Some(parts) = parts.filter(|_| self.checked().get(&key) == Some(&source.digest)) else {
            let hash = || selection_digest(&open.tree, &source.selection, &open.index);
            return Ok(on_cpu_pool(hash)? == source.digest);
        };
        for part in parts.iter() {
            if !on_cpu_pool(|| is_unchanged(&open.tree, part, &open.index))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn open(&self, name: &str) -> Result<&Open, ContextError> {
        let context =
            self.contexts.get(name).ok_or_else(|| ContextError::NotGiven(name.to_owned()))?;
        if let Some(open) = context.open.get() {
            return Ok(open);
        }
        let tree = ContextTree::open(&context.path, &context.ignore)?;
        let index = StatIndex::load(&context.index_path);
        Ok(context.open.get_or_init(|| Open { tree, index }))
    }

    fn checked(&self) -> MutexGuard<'_, HashMap<(String, Selection), Digest>> {
        self.checked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Contexts {
    fn default() -> Self {
        Self::new()
    }
}

/// A selection in words.
fn describe(selection: &Selection) -> String {
    match selection.paths.as_slice() {
        [] => "the content".to_owned(),
        paths => paths.iter().map(|p| format!("{:?}", p.path)).collect::<Vec<_>>().join(", "),
    }
}
