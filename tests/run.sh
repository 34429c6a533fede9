#!/bin/sh
# Runs all tests: unit and end-to-end tests, then the conformance cases.
set -eu
cd "$(dirname "$0")/.."
sh tests/setup.sh
cargo test --locked --workspace
cargo build --locked --release
target=$(cargo metadata --format-version 1 --no-deps --locked |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')
python3 tests/conformance/run.py --rbc "$target/release/rbc"
