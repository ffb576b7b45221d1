# syntax=docker/dockerfile:1
# Triton from the wheel nvidia-pytriton, with Tidegate's own backends: no GPU, no NGC. Built from the repository's root:
#   docker build --file docker/triton-cpu.Dockerfile --tag tidegate/triton-cpu .
# It serves TIDEGATE_MODEL_REPOSITORY, a mounted directory or s3://…, and the demo where that is not set. As `up` in place
# of `triton` it is the whole of Tidegate in one container.
# To pin the base by digest: --build-arg PYTHON_IMAGE=python:3.12-slim-bookworm@sha256:…
ARG PYTHON_IMAGE=python:3.12-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
COPY requirements/serve.txt requirements/
RUN python3 -m venv /opt/tidegate \
    && /opt/tidegate/bin/pip install --no-cache-dir --no-deps --require-hashes --requirement requirements/serve.txt
COPY . .
RUN /opt/tidegate/bin/pip install --no-cache-dir --no-deps . \
    && /opt/tidegate/bin/pip uninstall --yes pip

FROM ${PYTHON_IMAGE}
RUN useradd --uid 10001 --user-group --home-dir /var/lib/tidegate --create-home --shell /usr/sbin/nologin tidegate
COPY --from=build /opt/tidegate /opt/tidegate
ENV PATH=/opt/tidegate/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    TIDEGATE_HOST=0.0.0.0 \
    TIDEGATE_STATE_DIR=/var/lib/tidegate
USER 10001:10001
WORKDIR /var/lib/tidegate
EXPOSE 8001 8002
STOPSIGNAL SIGTERM
# Triton opens its metrics when its models are loaded.
HEALTHCHECK --interval=5s --timeout=3s --start-period=120s --retries=3 \
    CMD ["python3", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8002/metrics', timeout=2)"]
ENTRYPOINT ["tidegate"]
CMD ["triton"]
