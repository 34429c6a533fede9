#!/bin/sh
# What the image runs: prints the file that a RUN step of the build has made.
set -eu
exec cat "${HELLO_DIR:-/usr/local/share/hello}/greetings.txt"
