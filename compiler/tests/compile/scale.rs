//! Large Dockerfiles compile in a time and stack that grow with their size only.

use std::fmt::Write;

use crate::world::{World, options};

#[test]
fn ten_thousand_instructions() {
    let mut text = "FROM busybox\n".to_owned();
    for n in 0..10_000 {
        let _ = match n % 4 {
            0 => writeln!(text, "RUN echo {n}"),
            1 => writeln!(text, "ENV B={n}"),
            2 => writeln!(text, "LABEL l=$B"),
            _ => writeln!(text, "COPY a.txt /f{n}"),
        };
    }
    let compiled = World::new().compile(&text, &options());
    assert_eq!(compiled.graph.nodes.len(), 1 + 2_500 + 1 + 2_500);
    assert_eq!(compiled.graph.targets[0].config.history.len(), 1 + 10_000);
}

#[test]
fn a_chain_of_stages() {
    let mut text = "FROM busybox AS s0\n".to_owned();
    for n in 1..5_000 {
        let _ = writeln!(text, "FROM s{} AS s{n}\nCOPY --from=s{} /x /y", n - 1, n / 2);
    }
    let compiled = World::new().compile(&text, &options());
    assert_eq!(compiled.graph.targets[0].config.history.len(), 5_000);
}

#[test]
fn a_long_circle_of_stages() {
    let mut text = "FROM busybox AS s0\nCOPY --from=s4999 /x /y\n".to_owned();
    for n in 1..5_000 {
        let _ = writeln!(text, "FROM scratch AS s{n}\nCOPY --from=s{} /x /y", n - 1);
    }
    let error = World::new().errors(&text, &options());
    assert!(error.contains("circular dependency detected on stage: s0"), "{error}");
}
