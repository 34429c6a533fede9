#!/bin/sh
# Times the compiler alone on Dockerfiles of 10,000 instructions, 1,000 stages and other shapes, and
# shows how the time grows when the size doubles. It reads no files but its own and runs no step.
set -eu
cd "$(dirname "$0")/.."
exec cargo run --release --locked --quiet -p rbc-compiler --example compile_time
