//! What instructions become in the image config and its history.

use insta::assert_snapshot;

use crate::{
    render,
    world::{World, options},
};

fn config(text: &str) -> String {
    config_in(&World::new(), text)
}

fn config_in(world: &World, text: &str) -> String {
    render::config(&world.compile(text, &options()).graph.targets[0].config)
}

#[test]
fn all_settings() {
    assert_snapshot!(config("FROM busybox\nARG P=80\nENV A=1 B=\"$A x\"\nENV A=2 C=$A\nLABEL l.$P=\"a b\"\nEXPOSE $P/udp 1-2\nVOLUME /v [\"x\"]\nUSER u$P\nWORKDIR d/\nSTOPSIGNAL 9\nMAINTAINER M\nONBUILD RUN $X\nHEALTHCHECK --interval=90s CMD [\"t\"]\nSHELL [\"s\",\"-c\"]\nENTRYPOINT e $P\nCMD [\"$P\"]\n"), @r#"
    env ["PATH=/bin", "A=2", "B= x", "C=1"]
    entrypoint ["s", "-c", "e $P"]
    cmd ["$P"]
    shell ["s", "-c"]
    ports ["80/udp", "1/tcp", "2/tcp"]
    volumes ["/v", "[x]"]
    on build ["RUN $X"]
    author M
    user u80
    workdir /d
    signal 9
    labels {"l.80": "a b"}
    + made
    - ARG P=80
    - ENV A=1 B= x
    - ENV A=2 C=1
    - LABEL l.80=a b
    - EXPOSE [80/udp 1/tcp 2/tcp]
    - VOLUME [/v [x]]
    - USER u80
    + WORKDIR /d
    - STOPSIGNAL 9
    - MAINTAINER M
    - HEALTHCHECK {Test:[CMD t] Interval:1m30s Timeout:0s StartPeriod:0s StartInterval:0s Retries:0}
    - SHELL [s -c]
    - ENTRYPOINT ["s" "-c" "e $P"]
    - CMD ["$P"]
    "#);
}

#[test]
fn history_of_steps() {
    assert_snapshot!(config("FROM busybox\nARG V=one\nARG W\nRUN echo $V\nENV V=two\nRUN [\"x\", \"y\"]\nWORKDIR /w\nWORKDIR /\nCOPY --chown=1 --from=busybox /a b /d/\nADD --chmod=600 <<f /\nf\n"), @r#"
    env ["PATH=/bin", "V=two"]
    cmd ["sh"]
    workdir /
    + made
    - ARG V=one
    - ARG W
    + RUN |2 V=one W= /bin/sh -c echo $V # buildkit
    - ENV V=two
    + RUN |2 V=two W= x y # buildkit
    + WORKDIR /w
    - WORKDIR /
    + COPY --chown=1 /a b /d/ # buildkit
    + ADD --chmod=600 <<f / # buildkit
    "#);
}

#[test]
fn entrypoint_clears_only_an_inherited_cmd() {
    assert!(!config("FROM busybox\nENTRYPOINT [\"e\"]\n").contains("cmd ["));
    assert!(config("FROM busybox\nCMD [\"c\"]\nENTRYPOINT [\"e\"]\n").contains("cmd [\"c\"]"));
    let child = config("FROM busybox AS a\nCMD [\"c\"]\nFROM a\nENTRYPOINT [\"e\"]\n");
    assert!(!child.contains("cmd ["), "{child}");
}

#[test]
fn labels_of_the_command_line_come_last() {
    let mut options = options();
    options.labels.insert("a".to_owned(), "cli".to_owned());
    let compiled = World::new().compile("FROM busybox\nLABEL a=1 b=2\n", &options);
    let labels = &compiled.graph.targets[0].config.config.labels;
    assert_eq!(labels["a"], "cli");
    assert_eq!(labels["b"], "2");
}

#[test]
fn the_latest_of_arg_and_env_wins() {
    let cases = [
        ("ENV V=env\nARG V=arg\n", "arg"),
        ("ARG V=arg\nENV V=env\n", "env"),
        ("ARG V=arg\n", "arg"),
        ("ARG V\n", ""),
    ];
    for (lines, want) in cases {
        let text = format!("FROM busybox\n{lines}LABEL got=\"$V\"\n");
        let compiled = World::new().compile(&text, &options());
        assert_eq!(compiled.graph.targets[0].config.config.labels["got"], want, "{lines}");
    }
}

#[test]
fn commands_see_variables_in_the_order_of_their_last_setting() {
    let text = "FROM busybox AS a\nARG A=1\nENV E=1\nENV F=1\nENV PATH=/x\nENV E=2\nRUN one\nFROM a\nRUN two\n";
    let compiled = World::new().compile(text, &options());
    let seen: Vec<String> = compiled
        .graph
        .nodes
        .values()
        .filter_map(|node| match &node.op {
            rbc_ir::Op::Exec(exec) => Some(exec.env.join(" ")),
            _ => None,
        })
        .collect();
    // A stage begins with the image's environment, after what is left of its base's arguments.
    assert_eq!(seen, ["A=1 F=1 PATH=/x E=2", "A=1 PATH=/x E=2 F=1"]);
    let env = &compiled.graph.targets[0].config.config.env;
    assert_eq!(env, &["PATH=/x", "E=2", "F=1"]);
}

#[test]
fn a_variable_without_a_name_is_kept_from_commands() {
    let compiled = World::new().compile("FROM busybox\nENV $UNSET=1 A=2\nRUN one\n", &options());
    assert_eq!(compiled.graph.targets[0].config.config.env, ["PATH=/bin", "=1", "A=2"]);
}

#[test]
fn a_child_stage_takes_env_before_an_inherited_arg() {
    let text = "FROM busybox AS a\nENV V=env\nARG V=arg\nARG W=w\nFROM a\nLABEL got=\"$V$W\"\n";
    let compiled = World::new().compile(text, &options());
    assert_eq!(compiled.graph.targets[0].config.config.labels["got"], "envw");
}

#[test]
fn global_args_must_be_declared_again() {
    let text = "ARG G=glob\nFROM busybox\nLABEL a=\"$G\"\nARG G\nLABEL b=\"$G\"\n";
    let labels =
        World::new().compile(text, &options()).graph.targets[0].config.config.labels.clone();
    assert_eq!((labels["a"].as_str(), labels["b"].as_str()), ("", "glob"));
}

#[test]
fn triggers_of_an_image_fire_first_and_once() {
    let mut world = World::new();
    let mut base = world.images["docker.io/library/busybox:latest"].clone();
    base.config.on_build = vec!["ENV T=1".to_owned(), "COPY --from=busybox /a /a".to_owned()];
    world.images.insert("docker.io/library/base:latest".to_owned(), base);
    assert_snapshot!(config_in(&world, "FROM base AS a\nENV S=$T\nFROM a\nENV E=1\n"), @r#"
    env ["PATH=/bin", "T=1", "S=1", "E=1"]
    cmd ["sh"]
    + made
    - ENV T=1
    + COPY /a /a # buildkit
    - ENV S=1
    - ENV E=1
    "#);
}

#[test]
fn an_image_without_path_gets_the_usual_one() {
    assert!(config("FROM scratch\n").contains("PATH=/usr/local/sbin:/usr/local/bin"));
}
