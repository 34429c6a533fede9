//! A small graph with a shared node and names that attack, in every form.

use rbc_ir::{
    CopyAction, FileAction, FileOp, Graph, GraphBuilder, ImageConfig, Input, Mkdir, NodeMeta, Op,
    Platform, Source, Target,
};

use super::{Format, render};

fn named(name: &str) -> NodeMeta {
    NodeMeta { name: name.to_owned(), ..NodeMeta::default() }
}

fn target(name: &str, root: Input) -> Target {
    let platform = Platform::new("linux", "amd64", "");
    Target { name: name.to_owned(), root: Some(root), platform, config: ImageConfig::default() }
}

fn mkdir(path: &str) -> Op {
    let mkdir = Mkdir { path: path.to_owned(), mode: 0o755, parents: true, owner: None };
    Op::File(FileOp { actions: vec![FileAction::Mkdir(mkdir)] })
}

fn sample() -> Graph {
    let mut builder = GraphBuilder::new();
    let mut add = |op, inputs, meta| builder.add(op, inputs, None, meta).unwrap();
    let scratch = add(Op::Source(Source::Scratch), vec![], NodeMeta::default());
    let shared = add(mkdir("/a"), vec![scratch], named("[1/2] WORKDIR /a"));
    let copy = FileAction::Copy(CopyAction {
        input: 1,
        source: "/x".to_owned(),
        dest: "/y/".to_owned(),
        owner: None,
        mode: None,
        wildcard: false,
        follow_symlinks: true,
        unpack: false,
        parents: false,
        exclude: Vec::new(),
        allow_missing: false,
    });
    let hostile = named("evil \"name\" \\ <b>&\n\u{1b}[31m];");
    let last = add(Op::File(FileOp { actions: vec![copy] }), vec![scratch, shared], hostile);
    let targets = vec![target("one", shared), target("two", last)];
    builder.finish(targets)
}

fn shown(graph: &Graph, format: Format) -> String {
    let mut out = Vec::new();
    render(graph, format, &mut out).unwrap();
    let mut text = String::from_utf8(out).unwrap();
    // Names stand in for digests, so that the snapshots say what the digests stand for.
    for (at, digest) in graph.nodes.keys().enumerate() {
        text = text.replace(&digest.to_string(), &format!("DIGEST{at}"));
        text = text.replace(&digest.short(), &format!("NODE{at}"));
    }
    for (at, target) in graph.targets.iter().enumerate() {
        text = text.replace(&target.digest().short(), &format!("TARGET{at}"));
    }
    text
}

#[test]
fn a_tree_shows_a_shared_node_once() {
    insta::assert_snapshot!(shown(&sample(), Format::Tree), @r#"
    target one linux/amd64 TARGET0
      NODE1 [1/2] WORKDIR /a
          mkdir /a 0755
        NODE0 scratch
    target two linux/amd64 TARGET1
      NODE2 evil "name" \ <b>& �[31m];
          copy /x of input 1 to /y/
        NODE0 scratch (see above)
        NODE1 [1/2] WORKDIR /a (see above)
    "#);
}

#[test]
fn dot_labels_are_quoted() {
    insta::assert_snapshot!(shown(&sample(), Format::Dot), @r##"
    digraph build {
      rankdir=BT;
      node [fontname="sans-serif"];
      n0 [label="scratch", shape=cylinder, tooltip="DIGEST0"];
      n1 [label="[1/2] WORKDIR /a", shape=note, tooltip="DIGEST1"];
      n0 -> n1;
      n2 [label="evil \"name\" \\ <b>& �[31m];", shape=note, tooltip="DIGEST2"];
      n0 -> n2;
      n1 -> n2;
      t0 [label="one (linux/amd64)", shape=doubleoctagon];
      n1 -> t0;
      t1 [label="two (linux/amd64)", shape=doubleoctagon];
      n2 -> t1;
    }
    "##);
}

#[test]
fn mermaid_labels_are_entities() {
    insta::assert_snapshot!(shown(&sample(), Format::Mermaid), @r##"
    flowchart BT
      n0["scratch"]
      n1["#91;1/2#93; WORKDIR /a"]
      n0 --> n1
      n2["evil #34;name#34; #92; #60;b#62;#38; #65533;#91;31m#93;#59;"]
      n0 --> n2
      n1 --> n2
      t0(["one (linux/amd64)"])
      n1 --> t0
      t1(["two (linux/amd64)"])
      n2 --> t1
    "##);
}

#[test]
fn svg_is_xml_whatever_the_names_are() {
    let svg = shown(&sample(), Format::Svg);
    assert!(svg.contains("evil &quot;name&quot;"), "{svg}");
    assert!(!svg.contains("<b>") && !svg.contains('\u{1b}'), "{svg}");
    assert_eq!(svg.matches("<path").count(), 3, "an arrow for each input");
    assert_eq!(svg.matches("<g class=\"").count(), svg.matches("</g>").count());
}

#[test]
fn json_reads_back() {
    let mut out = Vec::new();
    render(&sample(), Format::Json, &mut out).unwrap();
    assert_eq!(Graph::from_json(std::str::from_utf8(&out).unwrap()).unwrap(), sample());
}

#[test]
fn output_grows_with_the_graph_and_not_with_its_depth() {
    let chain = |length: usize| {
        let mut builder = GraphBuilder::new();
        let scratch = Op::Source(Source::Scratch);
        let mut last = builder.add(scratch, vec![], None, NodeMeta::default()).unwrap();
        for n in 0..length {
            last = builder.add(mkdir(&format!("/{n}")), vec![last], None, named("m")).unwrap();
        }
        builder.finish(vec![target("", last)])
    };
    for format in [Format::Tree, Format::Dot, Format::Mermaid, Format::Svg] {
        let size = |length| shown_size(&chain(length), format);
        assert!(size(20_000) < 25 * size(1_000), "{format:?}");
    }
}

fn shown_size(graph: &Graph, format: Format) -> usize {
    let mut out = Vec::new();
    render(graph, format, &mut out).unwrap();
    out.len()
}
