//! What reading hostile and large graphs costs in memory, measured with an allocator that counts.
//!
//! Everything is in one test, because the counter is for the whole process.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use rbc_ir::{
    Digest, Graph, GraphBuilder, IR_VERSION, ImageConfig, MAGIC, NodeMeta, Op, Platform, Source,
    Target,
};

struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is handed on to the system's allocator as it is; only numbers are kept beside.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        PEAK.fetch_max(NOW.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the pointer came from `System.alloc` with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs `work`; also gives how much more memory was in use at its peak than before.
fn peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = NOW.load(Relaxed);
    PEAK.store(before, Relaxed);
    let result = work();
    (result, PEAK.load(Relaxed) - before)
}

/// A graph.bin with a right header and checksum around any payload.
fn frame(payload: &[u8]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&IR_VERSION.to_le_bytes());
    out.extend_from_slice(&(payload.len() as u64).to_le_bytes());
    out.extend_from_slice(payload);
    let sum = Digest::of(&out);
    out.extend_from_slice(sum.as_bytes());
    out
}

/// A chain of nodes, each with a description.
fn chain(nodes: usize) -> Graph {
    let mut builder = GraphBuilder::new();
    let scratch = Op::Source(Source::Scratch);
    let mut last =
        builder.add(scratch, Vec::new(), None, NodeMeta::default()).expect("it has no inputs");
    for number in 0..nodes {
        let inputs = vec![last, last];
        let name = format!("[stage {number}/{nodes}] RUN something");
        let meta = NodeMeta { name, ..NodeMeta::default() };
        let op = if number % 2 == 0 { Op::Merge } else { Op::Diff };
        last = builder.add(op, inputs, None, meta).expect("its input is there");
    }
    builder.finish(vec![Target {
        name: String::new(),
        root: Some(last),
        platform: Platform::new("linux", "amd64", ""),
        config: ImageConfig::default(),
    }])
}

#[test]
fn reading_takes_memory_in_proportion_to_the_input() {
    const MIB: usize = 1 << 20;
    // A length in its longest form, as large as an attacker likes.
    let huge = |length: u64| [&[0xfd][..], &length.to_le_bytes()].concat();
    for length in [1 << 23, 1 << 30, 1 << 40, u64::MAX] {
        let payloads = [
            // The number of nodes; the arguments of an exec; one argument; the content of a file;
            // inputs; targets.
            huge(length),
            [&[1, 1][..], &huge(length)].concat(),
            [&[1, 1, 1][..], &huge(length)].concat(),
            [&[1, 2, 1, 2, 2, b'/', b'a', 0][..], &huge(length)].concat(),
            [&[1, 0, 0][..], &huge(length)].concat(),
            [&[0][..], &huge(length)].concat(),
        ];
        for payload in payloads {
            let bytes = frame(&payload);
            let (result, used) = peak(|| Graph::decode(&bytes));
            assert!(result.is_err());
            assert!(used < 12 * MIB, "{used} bytes for {payload:?}");
        }
    }
    // Equal nodes cost three bytes each, but the second is refused.
    let (result, used) = peak(|| Graph::decode(&frame(&[0; 4 * MIB])));
    assert!(result.is_err());
    assert!(used < 20 * MIB, "{used} bytes for zeros");

    let small = chain(10_000).encode().expect("it is valid");
    let (graph, used) = peak(|| Graph::decode(&small));
    assert_eq!(graph.expect("it is valid").nodes.len(), 10_001);
    assert!(used < 24 * small.len(), "{used} bytes for {}", small.len());
}

/// `cargo test --release -p rbc-ir --test allocation -- --ignored`
#[test]
#[ignore = "takes a gigabyte and some seconds"]
fn a_million_nodes_are_read() {
    let bytes = chain(1_000_000).encode().expect("it is valid");
    let (graph, used) = peak(|| Graph::decode(&bytes));
    assert_eq!(graph.expect("it is valid").nodes.len(), 1_000_001);
    assert!(used < 24 * bytes.len(), "{used} bytes for {}", bytes.len());
}
