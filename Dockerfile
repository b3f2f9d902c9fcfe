# The pinned image: Debian of one day, and the packages of requirements.lock as `reproduce` installs
# them anywhere. `docker build -t binaryconnect .` needs BuildKit (DOCKER_BUILDKIT=1 before Docker 23).

# Where no registry is reachable: another Debian 12, such as debootstrap makes.
ARG BASE=debian:bookworm-20260824-slim@sha256:88200866dfff7ea7f5cbcb6ec7c8a701889efe6fe859fe64d6990e4b07ea4171
FROM $BASE

# Debian's archive as of the base's day; empty for the sources that the base comes with.
ARG SNAPSHOT=20260824T000000Z
RUN if [ -n "$SNAPSHOT" ]; then \
        rm -f /etc/apt/sources.list.d/*; \
        for suite in debian:bookworm debian:bookworm-updates debian-security:bookworm-security; do \
            echo "deb [check-valid-until=no] http://snapshot.debian.org/archive/${suite%:*}/$SNAPSHOT ${suite#*:} main"; \
        done >/etc/apt/sources.list; \
    fi; \
    apt-get update && \
    apt-get install --yes --no-install-recommends g++ python3.11-dev python3.11-venv tini && \
    rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/*

# The environment. A network whose HTTPS needs a certificate of its own gives it as a secret:
# --secret id=ca,src=/etc/ssl/certs/ca-certificates.crt
COPY reproduce requirements.lock /binaryconnect/
COPY original_stack /binaryconnect/original_stack
RUN --mount=type=secret,id=ca \
    if [ -e /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi; \
    PIP_NO_CACHE_DIR=1 /binaryconnect/reproduce python -c pass

# The program, and its commit: COMMIT, else what .git says.
COPY . /binaryconnect
WORKDIR /binaryconnect
ARG COMMIT
RUN if cd .git 2>/dev/null; then head=$(sed 's/^ref: //' HEAD); fi; \
    for found in "$COMMIT" "$head" "$(cat "$head")" "$(awk -v head="$head" '$2 == head { print $1 }' packed-refs)"; do \
        echo "$found"; \
    done 2>/dev/null | grep -E -m 1 '^[0-9a-f]{40}$' >/binaryconnect/commit; \
    rm -rf /binaryconnect/.git

# /cache holds all else that is written, with HOME and temporary files, so that the rest may be
# read-only. A volume is executable, unlike Docker's own tmpfs: Theano loads what it compiles.
ARG BASE
ENV BINARYCONNECT_IMAGE="$BASE" BINARYCONNECT_DATA=/data BINARYCONNECT_RESULTS=/results \
    BINARYCONNECT_CACHE=/cache HOME=/cache TMPDIR=/cache RUFF_CACHE_DIR=/cache/ruff \
    HYPOTHESIS_STORAGE_DIRECTORY=/cache/hypothesis
RUN mkdir -m 1777 /cache /data /results && chown 1000:1000 /cache /data /results
VOLUME /cache /data /results

ARG SOURCE
LABEL org.opencontainers.image.title="BinaryConnect" \
      org.opencontainers.image.source="$SOURCE" \
      org.opencontainers.image.revision="$COMMIT" \
      org.opencontainers.image.base.name="$BASE" \
      org.opencontainers.image.licenses="BSD-3-Clause" \
      versions="Python 3.11, Theano 1.0.5, Lasagne 0.1, Fuel 0.2.0"

ENTRYPOINT ["tini", "--", "/binaryconnect/entrypoint"]
