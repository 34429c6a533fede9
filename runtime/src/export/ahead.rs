//! Packs layers while later steps still run.
//!
//! A layer that the image will contain is known to be final the moment its step has ended. It is
//! packed at once, on threads of the lowest priority, so that the CPU work of steps goes first. The
//! export that follows finds the blobs in the index; whatever is not there yet it makes itself.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

use rustix::process::Pid;

use super::{OutputKind, OutputSpec, blob};
use crate::{
    layer::Recipe,
    registry::Stop,
    store::{LayerId, Store},
};

/// The nice value of threads that get what others leave.
const LOWEST_PRIORITY: i32 = 19;

/// Layers waiting to be packed.
pub struct Ahead<'a> {
    store: &'a Store,
    recipes: Vec<Recipe>,
    epoch: Option<i64>,
    stop: Stop,
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<LayerId>,
    /// No more layers come, and those that wait are left to the export.
    closed: bool,
    /// The threads that pack.
    threads: Vec<Pid>,
}

impl<'a> Ahead<'a> {
    /// For these outputs under a `SOURCE_DATE_EPOCH`. What is being packed when `stop` is asked
    /// for is dropped.
    pub fn new(store: &'a Store, outputs: &[OutputSpec], epoch: Option<i64>, stop: Stop) -> Self {
        let mut recipes = Vec::new();
        for output in outputs {
            let is_image = matches!(output.kind, OutputKind::Image(_));
            if is_image && !recipes.contains(&output.recipe) {
                recipes.push(output.recipe);
            }
        }
        let (queue, changed) = (Mutex::default(), Condvar::new());
        Self { store, recipes, epoch, stop, queue, changed }
    }

    /// Tells of a layer that the image will contain. Layers of base images have blobs already.
    pub fn add(&self, layer: &LayerId) {
        if !layer.is_of_image() && !self.recipes.is_empty() {
            self.queue().waiting.push_back(layer.clone());
            self.changed.notify_one();
        }
    }

    /// Packs what `build` adds for as long as it runs. Waits for the layer at hand then, which is
    /// packed at full speed from there on where that is allowed.
    pub fn during<T>(&self, build: impl FnOnce() -> T) -> T {
        /// Closes the queue however the build ends.
        struct Close<'a, 'b>(&'a Ahead<'b>);
        impl Drop for Close<'_, '_> {
            fn drop(&mut self) {
                let mut queue = self.0.queue();
                queue.closed = true;
                for thread in queue.threads.drain(..) {
                    // Who may not says nothing: it takes longer on a busy machine, no more.
                    let _ = rustix::process::setpriority_process(Some(thread), 0);
                }
                self.0.changed.notify_one();
            }
        }
        std::thread::scope(|scope| {
            let name = "ahead".to_owned();
            // Without a thread the export does all.
            let _ = std::thread::Builder::new().name(name).spawn_scoped(scope, || self.work());
            let _close = Close(self);
            build()
        })
    }

    fn work(&self) {
        let mut pool = None;
        while let Some(layer) = self.next() {
            if pool.is_none() {
                pool = background_pool();
                let Some(pool) = &pool else { return };
                self.lower(pool);
            }
            let Some(pool) = &pool else { return };
            for &recipe in &self.recipes {
                // A failure will come again in the export, which tells of it.
                let _ =
                    pool.install(|| blob::own(self.store, &layer, recipe, self.epoch, &self.stop));
            }
        }
    }

    /// Gives the threads of a pool the lowest priority, until the build ends.
    fn lower(&self, pool: &rayon::ThreadPool) {
        let threads = pool.broadcast(|_| rustix::thread::gettid());
        let mut queue = self.queue();
        if queue.closed {
            return;
        }
        for thread in &threads {
            // Of this thread alone. What cannot be nice is no worse for the result.
            let _ = rustix::process::setpriority_process(Some(*thread), LOWEST_PRIORITY);
        }
        queue.threads = threads;
    }

    fn next(&self) -> Option<LayerId> {
        let mut queue = self.queue();
        loop {
            if queue.closed {
                return None;
            }
            if let Some(layer) = queue.waiting.pop_front() {
                return Some(layer);
            }
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Threads of their own, so that they can have a priority of their own. Blocks of a layer that are
/// compressed in parallel stay in the pool that the layer is packed in.
fn background_pool() -> Option<rayon::ThreadPool> {
    rayon::ThreadPoolBuilder::new().thread_name(|n| format!("ahead-{n}")).build().ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{
        export::{Dest, Format},
        layer::Packing,
    };

    fn store_with_layer() -> (tempfile::TempDir, Store, LayerId) {
        let dir = tempfile::tempdir().expect("folder");
        let store = Store::open(dir.path()).expect("store");
        let work = store.tmp_dir().expect("folder");
        let upper = work.path().join("upper");
        fs::create_dir(&upper).expect("folder");
        fs::write(upper.join("file"), vec![7; 3 << 20]).expect("file");
        let id = LayerId::unique();
        store.publish_layer(&upper, &id).expect("published");
        (dir, store, id)
    }

    fn gzip() -> [OutputSpec; 1] {
        let output = OutputSpec::new(OutputKind::Image(Format::Oci), Dest::Stdout);
        [OutputSpec { recipe: Packing::Gzip.into(), ..output }]
    }

    #[test]
    fn a_layer_is_packed_while_the_build_runs() {
        let (_dir, store, id) = store_with_layer();
        let ahead = Ahead::new(&store, &gzip(), None, Stop::default());
        let known = || store.layer_blob(&id, &Recipe::default().name(), None).expect("index");
        let early = ahead.during(|| {
            ahead.add(&id);
            // Hangs if nothing is packed before the build has ended.
            loop {
                if let Some(found) = known() {
                    return found;
                }
                std::thread::yield_now();
            }
        });
        let late = blob::own(&store, &id, Recipe::default(), None, &Stop::default());
        assert_eq!(late.expect("packed"), early);
    }

    #[test]
    fn nothing_is_packed_after_a_stop() {
        let (_dir, store, id) = store_with_layer();
        let stop = Stop::when(|| true);
        let packed = blob::own(&store, &id, Recipe::default(), None, &stop);
        assert!(matches!(packed, Err(crate::export::ExportError::Stopped)), "{packed:?}");
        assert!(store.blobs().list().expect("blobs").is_empty());
    }

    #[test]
    fn a_build_that_panics_ends_the_work() {
        let (_dir, store, id) = store_with_layer();
        let ahead = Ahead::new(&store, &gzip(), None, Stop::default());
        let died = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            ahead.during(|| {
                ahead.add(&id);
                panic!("on purpose");
            })
        }));
        assert!(died.is_err());
    }
}
