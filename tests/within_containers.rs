//! rbc inside a container: here a step of another rbc, with Docker's default profile and without.

mod support;

use support::{Bench, Run};

/// Files only, for the rbc inside.
const FILES: &str = "FROM scratch\nCOPY seed /seed\nCOPY --chown=7:8 <<EOF /made\nhere\nEOF\n";

/// A bench with an image that holds rbc and the programs named.
fn bench() -> Bench {
    let bench = Bench::new();
    let program = env!("CARGO_BIN_EXE_rbc");
    bench.rbc(&format!("base-image --tag rbc {program} sh cat cmp id")).ok();
    bench.write("c/seed", "grown").write("c/files.Dockerfile", FILES);
    bench
}

/// Builds an image in a step that runs `command`.
fn step(bench: &Bench, flags: &str, command: &str) -> Run {
    let program = env!("CARGO_BIN_EXE_rbc");
    bench.write(
        "c/Dockerfile",
        format!(
            "FROM rbc\nWORKDIR /work\nENV HOME=/root\nCOPY . .\nRUN {flags} \
             rbc() {{ {program} \"$@\"; }}; set -e; {command}\n"
        ),
    );
    bench.rbc("build --allow security.insecure c")
}

#[test]
fn files_are_built_in_a_container_without_privileges() {
    let bench = bench();
    let command = "rbc build -q -f files.Dockerfile -t files .; \
                   rbc build -q -f files.Dockerfile -o out .; cmp seed out/seed; \
                   rbc images";
    let run = step(&bench, "", command).ok();
    assert!(run.stderr.contains(" files "), "{}", run.stderr);
}

#[test]
fn a_command_in_a_container_without_privileges_says_what_it_needs() {
    let bench = bench();
    bench.write("c/run.Dockerfile", "FROM scratch\nCOPY . /\nRUN [\"/seed\"]\n");
    step(&bench, "", "rbc build -f run.Dockerfile .")
        .fails(1, "--security-opt seccomp=unconfined")
        .fails(1, "run.Dockerfile:3:1");
}

/// Builds an image with a command.
const COMMAND: &str = "rbc base-image --tag small sh id; \
    printf 'FROM small\\nRUN id -u > /who\\nFROM scratch\\nCOPY --from=0 /who /' > run.Dockerfile; \
    rbc build -f run.Dockerfile -o out .; echo who=$(cat out/who)";

#[test]
fn commands_run_in_a_privileged_container_with_a_volume() {
    let flags = "--security=insecure --mount=type=cache,target=/root/.local/share/rbc";
    let run = step(&bench(), flags, COMMAND).ok();
    assert!(run.stderr.contains("who=0"), "{}", run.stderr);
}

#[test]
fn a_command_whose_state_folder_is_in_the_container_asks_for_a_volume() {
    step(&bench(), "--security=insecure", COMMAND).fails(1, "put it on a volume");
}
