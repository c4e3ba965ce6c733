# One image for all our processes. docker-compose.yml starts them, and docs/scaling.md explains how. The build needs BuildKit.

FROM python:3.11-slim AS builder
# Compile the environment here. On a read-only root nothing can be saved later, and each start would compile it again.
ENV UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_PROJECT_ENVIRONMENT=/opt/phantoms \
    UV_PYTHON=/usr/local/bin/python3.11 \
    UV_PYTHON_DOWNLOADS=never
RUN pip install --no-cache-dir --root-user-action=ignore "uv==0.13.*"
WORKDIR /src
# Dependencies come first, so that a change of our code leaves their layer as it is. `exclude-newer` fixes the versions.
COPY pyproject.toml README.md LICENSE dagster.yaml ./
RUN --mount=type=cache,target=/root/.cache/uv uv sync --no-dev --no-install-project
COPY phantoms_dagster ./phantoms_dagster
RUN --mount=type=cache,target=/root/.cache/uv uv sync --no-dev --no-editable

FROM python:3.11-slim
# The standard library of this image comes without bytecode.
RUN python -m compileall -q -j 0 -x "lib2to3|idlelib|turtledemo" /usr/local/lib/python3.11 \
    && groupadd --gid 10001 phantoms \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin phantoms \
    && install --directory --owner 10001 --group 10001 --mode 0750 /data
COPY --from=builder /opt/phantoms /opt/phantoms
ENV PATH=/opt/phantoms/bin:$PATH \
    HOME=/tmp \
    PHANTOMS_HOME=/data \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /data
VOLUME /data
CMD ["phantoms", "--help"]
