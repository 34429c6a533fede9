#!/bin/sh
# Builds the image of rbc with rbc from the Dockerfile of this checkout, where no registry can be
# reached: the base images are made of Debian's mirrors (debootstrap, root) and this machine's Rust.
# Then lets the rbc in that image build an image. All state is in a temporary folder.
#
# Usage: packaging/self-image.sh [RBC]    RBC: the program, else that of target/release
set -eu
cd "$(dirname "$0")/.."
rbc=$(realpath "${1:-target/release/rbc}")
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}

say() {
    printf '\n== %s\n' "$*"
}

tmp=$(mktemp -d "${TMPDIR:-/tmp}/rbc-self-image.XXXXXX")
trap 'chmod -R u+rwX "$tmp" 2>/dev/null || :; rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
export RBC_ROOT="$tmp/state"

say 'Stand-ins for debian:bookworm-slim and rust:1-bookworm'
mkdir "$tmp/context"
debootstrap --variant=minbase bookworm "$tmp/debian" "$mirror" >"$tmp/debootstrap.log" 2>&1 || {
    tail -n 20 "$tmp/debootstrap.log"
    exit 1
}
tar -C "$tmp/debian" -cf "$tmp/context/debian.tar" --one-file-system --exclude=./dev/* .
rm -rf "$tmp/debian"
cargo fetch --locked --quiet
stand_in() { # STAGE NAME
    "$rbc" build --quiet -f packaging/stand-ins.Dockerfile --target "$1" -t "$2" \
        --build-context "toolchain=$(rustc --print sysroot)" \
        --build-context "crates=${CARGO_HOME:-$HOME/.cargo}/registry" "$tmp/context"
}
stand_in debian debian:bookworm-slim
stand_in rust rust:1-bookworm

say 'rbc builds its own image'
"$rbc" build -t rbc .

say 'It does so from the cache, and to the same image'
first=$("$rbc" build --quiet .)
second=$("$rbc" build --quiet .)
[ "$first" = "$second" ]

say 'The rbc of the image builds an image'
cat >"$tmp/inner.Dockerfile" <<'EOF'
FROM rbc AS inner
WORKDIR /work
COPY <<EOT Dockerfile
FROM scratch
COPY Dockerfile /proof
EOT
RUN rbc build -o out . && cmp Dockerfile out/proof && rbc --version >out/version
FROM scratch
COPY --from=inner /work/out /
EOF
"$rbc" build -f "$tmp/inner.Dockerfile" -o "$tmp/out" "$tmp/context"
cmp "$tmp/out/version" - <<EOF
$("$rbc" --version)
EOF
cat "$tmp/out/version"
