#!/bin/sh
# From a checkout to an image, with no registry and no root: builds rbc, makes a base image of
# programs of this machine, and builds examples/hello in both ways (compile + run, and build).
# All state is in a temporary folder; what you have built before is not touched.
#
# To try another rbc than that of this checkout: RBC=/path/to/rbc examples/quickstart.sh
set -eu
cd "$(dirname "$0")/.."

say() {
    printf '\n== %s\n' "$*"
}

show() {
    printf '$ %s\n' "$*"
    "$@"
}

if [ -z "${RBC:-}" ]; then
    say 'Build rbc'
    show cargo build --release --locked
    target=${CARGO_TARGET_DIR:-$(
        cargo metadata --format-version 1 --no-deps --offline |
            sed 's/.*"target_directory":"\([^"]*\)".*/\1/'
    )}
    RBC=$target/release/rbc
fi
rbc() {
    "$RBC" "$@"
}

tmp=$(mktemp -d "${TMPDIR:-/tmp}/rbc-quickstart.XXXXXX")
# Folders of layers may lack write permission, which stops rm for all but root.
trap 'chmod -R u+rwX "$tmp" 2>/dev/null || :; rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
export RBC_ROOT="$tmp/state"

say 'Make the base image rbc/base of programs of this machine'
show rbc base-image

say 'Compile the Dockerfile to a graph: nothing runs yet'
show rbc compile --context examples/hello -o "$tmp/graph.bin" examples/hello/Dockerfile
show rbc inspect "$tmp/graph.bin"

say 'Run the graph; the result is the image "hello"'
show rbc run "$tmp/graph.bin" --context examples/hello -t hello

say 'Do both in one go: every step is in the cache'
show rbc build -t hello examples/hello

say 'Take the files out instead of an image: RUN made this one'
show rbc build -o "$tmp/out" examples/hello
show cat "$tmp/out/usr/local/share/hello/greetings.txt"

say 'Done'
