#!/bin/sh
# Installs what the tests need and this machine lacks. Needs Debian and root only if something is
# missing; says what is missing otherwise.
set -eu
packages=""
want() { # PROGRAM-OR-FILE PACKAGE
    case $1 in
    /*) [ -e "$1" ] || packages="$packages $2" ;;
    *) command -v "$1" >/dev/null 2>&1 || packages="$packages $2" ;;
    esac
}
want /bin/busybox busybox-static
want skopeo skopeo
want umoci umoci
want docker-registry docker-registry
want go golang-go
want gcc gcc
want /usr/lib/$(uname -m)-linux-gnu/libc.a libc6-dev
want /usr/share/gocode/src/golang.org/x/net golang-golang-x-net-dev
want /etc/ssl/certs/ca-certificates.crt ca-certificates
want python3 python3
want setpriv util-linux
want script bsdutils
want tmux tmux
want newuidmap uidmap
want setcap libcap2-bin
want xz xz-utils
want bzip2 bzip2
want zstd zstd
want git git
want ssh-keygen openssh-client
want openssl openssl
want chromium chromium
want chromedriver chromium-driver
[ -z "$packages" ] && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "the tests need these Debian packages (or their like):$packages" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086 # one word a package
apt-get install -y -qq --no-install-recommends $packages
