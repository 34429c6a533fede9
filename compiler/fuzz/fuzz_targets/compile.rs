//! Any bytes as a Dockerfile, compiled: no panic, and the graph keeps its bytes when it is read back.
#![no_main]

mod everything;

use std::sync::Arc;

use everything::Everything;
use libfuzzer_sys::fuzz_target;
use rbc_compiler::{CompileOptions, compile, syntax::SourceFile};
use rbc_ir::Graph;

fuzz_target!(|bytes: &[u8]| {
    let source = Arc::new(SourceFile::new("Dockerfile", bytes));
    match compile(&source, &CompileOptions::default(), &Everything) {
        Ok(compiled) => {
            let encoded = compiled.graph.encode().expect("a compiled graph is valid");
            let decoded = Graph::decode(&encoded).expect("what was encoded can be read");
            assert_eq!(decoded.encode().expect("what was read is valid"), encoded);
        }
        Err(errors) => assert!(!errors.to_string().is_empty()),
    }
});
