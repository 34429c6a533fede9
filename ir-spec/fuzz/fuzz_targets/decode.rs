//! Any bytes as a graph.bin: the reader gives a graph that is written in the same bytes, or an
//! error. The header and checksum are made right, so that the payload is reached.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rbc_ir::{Digest, Graph, IR_VERSION, MAGIC};

fuzz_target!(|payload: &[u8]| {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&IR_VERSION.to_le_bytes());
    bytes.extend_from_slice(&(payload.len() as u64).to_le_bytes());
    bytes.extend_from_slice(payload);
    let sum = Digest::of(&bytes);
    bytes.extend_from_slice(sum.as_bytes());
    let Ok(graph) = Graph::decode(&bytes) else { return };
    assert_eq!(graph.encode().expect("what was read can be written"), bytes);
    let again = Graph::from_json(&graph.to_json()).expect("the JSON form can be read");
    assert_eq!(again, graph);
});
