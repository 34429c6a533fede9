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

#[test]
fn many_errors_that_each_look_for_a_near_name() {
    let mut stages = String::new();
    let mut bases = String::new();
    for n in 0..4_000 {
        let _ = writeln!(stages, "FROM nosuch{n} AS stage{n}");
        let _ = writeln!(bases, "ARG NAME{n}\nFROM $NAMED{n}");
    }
    let world = World::new();
    let mut options = options();
    for n in 0..4_000 {
        options.build_args.insert(format!("VALUE{n}"), String::new());
    }
    let all = format!("{stages}FROM scratch\n{}", copies(4_000));
    // Each error may cost a search through all names, so their number bounds the searches.
    assert_eq!(world.errors(&all, &options).matches("error[image]").count(), 100);
    assert_eq!(world.errors(&bases, &options).matches("error[").count(), 100);
}

fn copies(count: usize) -> String {
    (0..count).fold(String::new(), |mut text, n| {
        let _ = writeln!(text, "COPY --from=stage{n} /x /y{n}");
        text
    })
}
