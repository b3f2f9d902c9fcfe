# The pinned image: a dated Debian snapshot, and the packages of requirements.lock, installed by
# `reproduce`. `docker build -t binaryconnect .` requires BuildKit (DOCKER_BUILDKIT=1 before Docker
# 23), and podman 4 builds it too.

# If no registry is reachable, use another Debian 12, for example one that debootstrap makes.
ARG BASE=debian:bookworm-20260824-slim@sha256:88200866dfff7ea7f5cbcb6ec7c8a701889efe6fe859fe64d6990e4b07ea4171
FROM $BASE

# The snapshot of Debian's archive on the day of the base; empty for the package sources of the base.
# The mounts keep lists, packages and logs out of the image. A builder without BuildKit fails here.
ARG SNAPSHOT=20260824T000000Z
RUN --mount=type=tmpfs,target=/var/lib/apt/lists --mount=type=tmpfs,target=/var/cache/apt \
    --mount=type=tmpfs,target=/var/cache/ldconfig --mount=type=tmpfs,target=/var/log \
    if [ -n "$SNAPSHOT" ]; then \
        rm -f /etc/apt/sources.list.d/*; \
        for suite in debian:bookworm debian:bookworm-updates debian-security:bookworm-security; do \
            echo "deb [check-valid-until=no] http://snapshot.debian.org/archive/${suite%:*}/$SNAPSHOT ${suite#*:} main"; \
        done >/etc/apt/sources.list; \
    fi; \
    apt-get update && \
    apt-get install --yes --no-install-recommends g++ python3.11-dev python3.11-venv tini

# The environment. SOURCE_DATE_EPOCH (the day of the base) makes compiled Python files independent of
# the time of the build. A network with its own HTTPS certificates gives them as a secret:
# --secret id=ca,src=/etc/ssl/certs/ca-certificates.crt
COPY reproduce requirements.lock /binaryconnect/
RUN --mount=type=secret,id=ca \
    if [ -e /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi; \
    SOURCE_DATE_EPOCH=1787529600 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 \
        /binaryconnect/reproduce python -c pass

# The program and its commit: COMMIT, otherwise the commit in .git.
COPY . /binaryconnect
WORKDIR /binaryconnect
ARG COMMIT=unknown
RUN if cd .git 2>/dev/null; then head=$(sed 's/^ref: //' HEAD); fi; \
    for commit in "$COMMIT" "$head" "$(cat "$head")" "$(awk -v head="$head" '$2 == head { print $1 }' packed-refs)"; do \
        echo "$commit"; \
    done 2>/dev/null | grep -E -m 1 '^[0-9a-f]{40}$' >/binaryconnect/commit; \
    rm -rf /binaryconnect/.git

# Everything else is written to /cache, including HOME and temporary files, so that the rest may be
# read-only. Theano loads compiled code from there, so it is a volume: Docker's tmpfs is noexec.
ARG BASE
ENV BINARYCONNECT_IMAGE="$BASE" BINARYCONNECT_DATA=/data BINARYCONNECT_RESULTS=/results \
    BINARYCONNECT_CACHE=/cache HOME=/cache TMPDIR=/cache
RUN mkdir -m 1777 /cache /data /results && chown 1000:1000 /cache /data /results
VOLUME /cache /data /results

# CREATED is the date of the commit; the default is the date of the base. The image contains its source.
ARG CREATED=2026-08-24T00:00:00Z
ARG SOURCE=file:///binaryconnect
LABEL org.opencontainers.image.title="BinaryConnect" \
      org.opencontainers.image.description="BinaryConnect, reproduced in the stack it was written in" \
      org.opencontainers.image.version="1.0.0" \
      org.opencontainers.image.created="$CREATED" \
      org.opencontainers.image.source="$SOURCE" \
      org.opencontainers.image.revision="$COMMIT" \
      org.opencontainers.image.base.name="$BASE" \
      org.opencontainers.image.licenses="BSD-3-Clause" \
      versions="Python 3.11, Theano 1.0.5, Lasagne 0.1, Fuel 0.2.0"

ENTRYPOINT ["tini", "--", "/binaryconnect/entrypoint"]
