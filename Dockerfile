# The server in a container: over stdio (docker run -i), or over HTTP where FASTN_HTTP says at which address.
# docs/hosting.md says how to run it. Everything that is installed is pinned with its digest; `make lock` pins it anew.

ARG BASE=docker.io/library/python:3.13.15-slim-trixie@sha256:7c61056e61ac89e852de05f3dc6fa51a6dd2181797bceed46aa725dd7cb2cd3b

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY packaging/container.txt packaging/backend.txt packaging/
RUN python -m venv --without-pip /opt/fastn-mcp \
    && python -m venv /opt/backend \
    && /opt/backend/bin/python -m pip install --quiet --require-hashes -r packaging/backend.txt \
    && /opt/backend/bin/python -m pip --python /opt/fastn-mcp/bin/python install \
        --quiet --require-hashes --only-binary :all: --no-compile -r packaging/container.txt
COPY pyproject.toml README.md LICENSE ./
COPY fastn_mcp fastn_mcp
# Byte code that never asks for its source's time: the root is read-only, and nothing could be compiled there.
RUN /opt/backend/bin/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist . \
    && /opt/backend/bin/python -m pip --python /opt/fastn-mcp/bin/python install \
        --quiet --no-deps --no-index --no-compile dist/*.whl \
    && /opt/fastn-mcp/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/fastn-mcp/lib

FROM ${BASE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL io.modelcontextprotocol.server.name="ai.fastn/fastn-mcp" \
    org.opencontainers.image.title="fastn-mcp" \
    org.opencontainers.image.description="Administer Fastn from an agent, safely." \
    org.opencontainers.image.url="https://fastn.ai" \
    org.opencontainers.image.source="https://github.com/fastn-ai/fastn-mcp" \
    org.opencontainers.image.documentation="https://github.com/fastn-ai/fastn-mcp/blob/main/docs/hosting.md" \
    org.opencontainers.image.licenses="MIT" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
RUN install -d -o 10001 -g 10001 -m 0700 /var/lib/fastn-mcp && install -d -m 0755 /etc/fastn-mcp
COPY --from=build /opt/fastn-mcp /opt/fastn-mcp
ENV PATH=/opt/fastn-mcp/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/var/lib/fastn-mcp \
    FASTN_STATE_DIR=/var/lib/fastn-mcp \
    FASTN_CONFIG_DIR=/etc/fastn-mcp
# Approvals, the audit, the journal. The only place that is written to.
VOLUME ["/var/lib/fastn-mcp"]
USER 10001:10001
WORKDIR /var/lib/fastn-mcp
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=15s CMD ["fastn-mcp", "health"]
ENTRYPOINT ["fastn-mcp"]
