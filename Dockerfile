# syntax=docker/dockerfile:1
# An image with rbc: `rbc build -t rbc .`, or with any other builder.
# For CI jobs it has a shell, git, ssh and what a user namespace of many ids needs.
ARG DEBIAN=bookworm

FROM rust:1-${DEBIAN} AS program
WORKDIR /src
# `dev` makes a quick build of a slow program.
ARG PROFILE=release
ENV CARGO_PROFILE_RELEASE_STRIP=true CARGO_PROFILE_DEV_STRIP=true
RUN --mount=type=bind,target=. \
    --mount=type=cache,target=/target \
    --mount=type=cache,target=/usr/local/cargo/registry \
    cargo install --locked --path . --profile ${PROFILE} --root /out --target-dir /target --no-track

FROM debian:${DEBIAN}-slim
RUN apt-get update && \
    apt-get install -y --no-install-recommends ca-certificates git openssh-client uidmap && \
    rm -rf /var/lib/apt/lists/* /var/log/apt /var/log/dpkg.log /var/cache/ldconfig/aux-cache
COPY --from=program /out/bin/rbc /usr/local/bin/
# A step needs its state on a volume: an overlay cannot lie on a container's own overlay.
ENV RBC_ROOT=/var/lib/rbc
VOLUME /var/lib/rbc
ENTRYPOINT ["rbc"]
CMD ["--help"]
