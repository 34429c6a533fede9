#!/bin/sh
# Tests how rbc is delivered, where no registry can be reached: makes the Debian package and
# installs it in a new Debian; builds the image of rbc with rbc from the Dockerfile of this
# checkout, and lets the rbc in that image build an image.
#
# The base images are made of Debian's mirrors ($DEBIAN_MIRROR; needs root) and this machine's Rust.
# Installs what is missing: a C compiler, debootstrap, dpkg-dev, cargo-deb; all other state is in a
# temporary folder.
set -eu
cd "$(dirname "$0")/.."
command -v cargo >/dev/null || {
    echo 'cargo is missing: install Rust 1.90 or newer (rustup.rs)' >&2
    exit 1
}
. packaging/target.sh
rbc=$target/release/rbc

say() {
    printf '\n== %s\n' "$*"
}

tmp=$(mktemp -d "${TMPDIR:-/tmp}/rbc-packaging.XXXXXX")
trap 'chmod -R u+rwX "$tmp" 2>/dev/null || :; rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
export RBC_ROOT="$tmp/state"

missing=
need() { # PROGRAM PACKAGES
    command -v "$1" >/dev/null || missing="$missing $2"
}
need cc 'gcc libc6-dev'
need debootstrap debootstrap
# Finds out which libraries the package depends on.
need dpkg-shlibdeps dpkg-dev
if [ -n "$missing" ]; then
    apt-get update -qq
    # shellcheck disable=SC2086 # a list
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
fi
command -v cargo-deb >/dev/null || cargo install --quiet --locked --debug cargo-deb@3.8.0

say 'The Debian package'
package=$(sh packaging/deb.sh)
version=$("$rbc" --version)

say 'Stand-ins for debian:bookworm-slim and rust:1-bookworm'
mkdir "$tmp/context"
debootstrap --variant=minbase bookworm "$tmp/debian" \
    "${DEBIAN_MIRROR:-http://deb.debian.org/debian}" >"$tmp/debootstrap.log" 2>&1 || {
    tail -n 20 "$tmp/debootstrap.log"
    exit 1
}
tar -C "$tmp/debian" -cf "$tmp/context/debian.tar" --exclude='./dev/*' .
rm -rf "$tmp/debian"
cargo fetch --locked --quiet
stand_in() { # STAGE NAME
    "$rbc" build --quiet -f packaging/stand-ins.Dockerfile --target "$1" -t "$2" \
        --build-context "toolchain=$(rustc --print sysroot)" \
        --build-context "crates=${CARGO_HOME:-$HOME/.cargo}/registry" "$tmp/context"
}
stand_in debian debian:bookworm-slim
stand_in rust rust:1-bookworm

say 'The package is installed in a new Debian'
rm "$tmp/context/debian.tar"
cp "$package" "$tmp/context/rbc.deb"
cat >"$tmp/package.Dockerfile" <<'EOF'
FROM debian:bookworm-slim
RUN --mount=type=bind,target=/packages \
    apt-get update && apt-get install -y --no-install-recommends /packages/rbc.deb bash-completion man-db
ARG VERSION
RUN [ "$(rbc --version)" = "$VERSION" ] && rbc build --help >/dev/null
RUN ls /usr/share/man/man1/rbc-build.1.gz /usr/share/zsh/vendor-completions/_rbc \
       /usr/share/fish/vendor_completions.d/rbc.fish /usr/share/doc/rbc/copyright
RUN bash -c '. /usr/share/bash-completion/bash_completion && _completion_loader rbc; complete -p rbc'
EOF
"$rbc" build --quiet -f "$tmp/package.Dockerfile" --build-arg "VERSION=$version" "$tmp/context"

say 'rbc builds its own image'
# All but optimised: what is tested here is not how fast it is.
own_image() { # ARGUMENTS
    "$rbc" build --build-arg PROFILE=dev "$@" .
}
own_image -t rbc

say 'It does so again from the cache, to the same image'
first=$(own_image --quiet)
second=$(own_image --quiet)
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
# With a command, as a privileged container would.
COPY <<EOT command.Dockerfile
FROM base
RUN echo ran > /ran
EOT
RUN --security=insecure --mount=type=cache,target=/var/lib/rbc \
    rbc base-image -t base sh cat && \
    rbc build -t command -f command.Dockerfile . && \
    rbc create --name box command && rbc cp box:/ran out/ran
FROM scratch
COPY --from=inner /work/out /
EOF
"$rbc" build --allow security.insecure -f "$tmp/inner.Dockerfile" -o "$tmp/out" "$tmp/context"
[ "$(cat "$tmp/out/version")" = "$version" ]
[ "$(cat "$tmp/out/ran")" = ran ]
printf '\n%s: package and image are good\n' "$version"
