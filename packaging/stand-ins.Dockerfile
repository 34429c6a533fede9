# Stand-ins for the base images that the Dockerfile of rbc names, for a machine that reaches
# Debian's mirrors but no registry. packaging/test.sh builds both stages.

# A minimal Debian; the context holds what debootstrap made of it.
FROM scratch AS debian
ADD debian.tar /
CMD ["bash"]

# Rust as this machine has it, with the crates that it has fetched.
FROM debian AS rust
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev
COPY --from=toolchain bin /usr/local/rust/bin
COPY --from=toolchain lib /usr/local/rust/lib
COPY --from=crates . /usr/local/crates/registry
ENV PATH=/usr/local/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    CARGO_HOME=/usr/local/crates CARGO_NET_OFFLINE=true
