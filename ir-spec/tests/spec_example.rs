//! The worked example of `SPEC.md`, so that the text and the code cannot drift apart.

use rbc_ir::{
    FileAction, FileOp, Graph, GraphBuilder, ImageConfig, Mkfile, NodeMeta, Op, Owner, Platform,
    Source, Target, UserRef,
};

/// The graph that the example describes.
fn example() -> Graph {
    let mut builder = GraphBuilder::new();
    let scratch = builder
        .add(Op::Source(Source::Scratch), Vec::new(), None, NodeMeta::default())
        .expect("it has no inputs");
    let mkfile = Op::File(FileOp {
        actions: vec![FileAction::Mkfile(Mkfile {
            path: "/hi".to_owned(),
            mode: 0o644,
            data: b"hi\n".to_vec(),
            owner: Some(Owner { user: UserRef::Id(1000), group: None }),
        })],
    });
    let platform = Platform::new("linux", "amd64", "");
    let root = builder
        .add(mkfile, vec![scratch], Some(platform.clone()), NodeMeta::default())
        .expect("scratch is there");
    let mut graph = builder.finish(vec![Target {
        name: "final".to_owned(),
        root: Some(root),
        platform,
        config: ImageConfig::default(),
    }]);
    graph.meta.nodes.clear();
    graph.meta.source_date_epoch = Some(-1);
    graph
}

fn spec() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/SPEC.md");
    std::fs::read_to_string(path).expect("SPEC.md stands beside the crate")
}

/// The bytes of the example: the hexadecimal numbers in front of each comment.
fn bytes_in_spec(spec: &str) -> Vec<u8> {
    let (_, rest) = spec.split_once("```hex\n").expect("SPEC.md has a hex block");
    let (block, _) = rest.split_once("```").expect("the block has an end");
    let mut bytes = Vec::new();
    for line in block.lines() {
        let numbers = line.split('#').next().unwrap_or_default();
        for number in numbers.split_whitespace() {
            bytes.push(u8::from_str_radix(number, 16).expect("two hexadecimal digits"));
        }
    }
    bytes
}

#[test]
fn the_bytes_are_those_of_the_example() {
    let (wanted, graph) = (bytes_in_spec(&spec()), example());
    let written = graph.encode().expect("the example is valid");
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ");
    assert_eq!(hex(&written), hex(&wanted));
    assert_eq!(Graph::decode(&wanted).expect("the example can be read"), graph);
}

#[test]
fn the_digests_are_those_of_the_example() {
    let (spec, graph) = (spec(), example());
    let digests = graph.nodes.keys().copied();
    let digests = digests.chain(graph.targets.iter().map(Target::digest));
    let op_digest = graph.nodes[1].op_digest();
    for digest in digests.chain([op_digest]) {
        assert!(spec.contains(&format!("`{digest}`")), "{digest} is not in SPEC.md");
    }
}

#[test]
fn the_json_is_that_of_the_example() {
    let spec = spec();
    let (_, rest) = spec.split_once("```json\n").expect("SPEC.md has a JSON block");
    let (json, _) = rest.split_once("```").expect("the block has an end");
    assert_eq!(example().to_json(), json.trim_end());
    assert_eq!(Graph::from_json(json).expect("the example can be read"), example());
}
