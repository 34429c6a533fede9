//! Any bytes as a Dockerfile, formatted: a second time changes nothing, and the graph stays the same.
#![no_main]

mod everything;

use std::sync::Arc;

use everything::Everything;
use libfuzzer_sys::fuzz_target;
use rbc_compiler::{CompileOptions, compile, fmt, syntax::SourceFile};
use rbc_ir::Digest;

fuzz_target!(|bytes: &[u8]| {
    let source = Arc::new(SourceFile::new("Dockerfile", bytes));
    let Ok(formatted) = fmt::format(&source) else { return };
    let again = Arc::new(SourceFile::new("Dockerfile", formatted.as_str()));
    assert_eq!(fmt::format(&again).expect("formatted text can be read"), formatted);
    assert_eq!(graph(&source), graph(&again));
});

/// What the nodes and the image configs amount to; nothing if the text does not compile.
fn graph(source: &Arc<SourceFile>) -> Option<(Vec<Digest>, String)> {
    let graph = compile(source, &CompileOptions::default(), &Everything).ok()?.graph;
    Some((graph.nodes.keys().copied().collect(), format!("{:?}", graph.targets)))
}
