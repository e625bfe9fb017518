# Vestibule as a static binary in an empty image.
#
#   docker build -t vestibule .
#
# Both base images are arguments, for mirrors and for distroless or hardened bases. The builder needs cargo, a C compiler
# and a CA bundle; the runtime image needs nothing.
ARG BUILDER_IMAGE=docker.io/library/rust:1-slim-bookworm
ARG RUNTIME_IMAGE=scratch

FROM ${BUILDER_IMAGE} AS build
ARG PROFILE=release
WORKDIR /build

COPY Cargo.toml Cargo.lock ./
COPY tests/support/Cargo.toml tests/support/Cargo.toml
COPY src src

# The workspace's other member is for tests: its manifest must be there for the lock file to fit, its code need not be.
# `--target` keeps crt-static away from proc macros and build scripts, which cannot be static. Packed relocations are a hundredth of
# what all of a process would otherwise read at its start, and keep. Sources are touched because
# cargo compares times, and a cached target directory may be younger than an older checkout. The demo stays out.
RUN --mount=type=cache,id=vestibule-crates,target=/usr/local/cargo/registry \
    --mount=type=cache,id=vestibule-target,target=/build/target \
    set -eu; \
    mkdir -p tests/support/src; \
    touch tests/support/src/lib.rs tests/main.rs src/lib.rs src/main.rs; \
    target="$(rustc -vV | sed -n 's/^host: //p')"; \
    directory="$PROFILE"; \
    if [ "$PROFILE" = dev ]; then directory=debug; fi; \
    RUSTFLAGS="-C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs" \
        cargo build --locked --package vestibule --bin vestibule --no-default-features --features redis,sql --profile "$PROFILE" --target "$target"; \
    mkdir -p /image/etc/ssl/certs; \
    cp "target/$target/$directory/vestibule" /image/vestibule; \
    cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ca-certificates.crt; \
    echo "hosts: files dns" > /image/etc/nsswitch.conf

FROM ${RUNTIME_IMAGE}
COPY --from=build /image /
USER 65532:65532
EXPOSE 8080
# Asks the admin listener (loopback, port 9090 unless told otherwise) inside the container; Kubernetes ignores it.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 CMD ["/vestibule", "healthcheck"]
ENTRYPOINT ["/vestibule"]
