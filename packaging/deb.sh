#!/bin/sh
# Makes the Debian package (the program, its manual pages, completions for bash, zsh and fish) and
# prints where it is. Needs cargo-deb: cargo install --locked cargo-deb
set -eu
cd "$(dirname "$0")/.."
command -v cargo-deb >/dev/null || {
    echo "cargo-deb is missing: cargo install --locked cargo-deb" >&2
    exit 1
}
cargo build --release --locked >&2
. packaging/target.sh
# Where Cargo.toml has them, whatever the target folder.
made=target/packaging
rm -rf "$made"
mkdir -p "$made/man"
"$target/release/rbc" man "$made/man"
for shell in bash zsh fish; do
    "$target/release/rbc" completions "$shell" >"$made/rbc.$shell"
done
cargo deb --no-build --locked --strip
