# Sets `target` to cargo's target folder; to be sourced in a checkout.
target=${CARGO_TARGET_DIR:-$(
    cargo metadata --format-version 1 --no-deps --locked |
        sed 's/.*"target_directory":"\([^"]*\)".*/\1/'
)}
