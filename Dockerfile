# An image with the relay and its tools. From the top of the repository: docker build -t hapax .
# The relay alone, without tools: docker build --build-arg FEATURES=--no-default-features -t hapax .
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY core core
COPY testbed testbed
COPY src src
COPY config config
ARG FEATURES=""
# (The benches that Cargo.toml names are not in the image: cargo looks at them only when it builds them.)
RUN sed -i '/^\[\[test\]\]/,/^$/d; /^\[\[bench\]\]/,/^$/d' Cargo.toml core/Cargo.toml \
    && cargo build --release --locked ${FEATURES} \
    && strip --strip-debug target/release/hapax

# The same Debian as the one that the program was built on.
FROM debian:bookworm-slim
# The certificates are for a Redis with TLS.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --system --gid 10001 hapax \
    && useradd --system --uid 10001 --gid 10001 --home-dir /var/lib/hapax --no-create-home --shell /usr/sbin/nologin hapax \
    && install -d -o hapax -g hapax -m 700 /var/lib/hapax
COPY --from=build /src/target/release/hapax /usr/bin/hapax
COPY config/hapax.toml /etc/hapax/hapax.toml
# By number, so that Kubernetes can see that it is not root.
USER 10001:10001
WORKDIR /var/lib/hapax
# AMQP, and the admin listener. The admin listener is on loopback until HAPAX_ADMIN says otherwise: it needs HAPAX_ADMIN_TOKEN then.
EXPOSE 5673 15673
# Works for `admin` on 127.0.0.1:15673 and on 0.0.0.0:15673.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/15673 && printf 'GET /healthz HTTP/1.0\\r\\n\\r\\n' >&3 && grep -q ' 200 ' <&3"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/bin/hapax"]
CMD ["--config", "/etc/hapax/hapax.toml", "--listen", "0.0.0.0:5673"]
