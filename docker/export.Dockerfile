# syntax=docker/dockerfile:1
# Training, export, MLflow and Locust: PyTorch with CUDA, whose libraries come with its wheels. Several GB. Built from the
# repository's root:
#   docker build --file docker/export.Dockerfile --tag tidegate/export .
# To pin the base by digest: --build-arg PYTHON_IMAGE=python:3.12-slim-bookworm@sha256:…
ARG PYTHON_IMAGE=python:3.12-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
COPY requirements/all.txt requirements/
RUN python3 -m venv /opt/tidegate \
    && /opt/tidegate/bin/pip install --no-cache-dir --no-deps --require-hashes --requirement requirements/all.txt
COPY . .
RUN /opt/tidegate/bin/pip install --no-cache-dir --no-deps . \
    && /opt/tidegate/bin/pip uninstall --yes pip

FROM ${PYTHON_IMAGE}
RUN useradd --uid 10001 --user-group --home-dir /var/lib/tidegate --create-home --shell /usr/sbin/nologin tidegate
COPY --from=build /opt/tidegate /opt/tidegate
COPY loadtest /opt/loadtest/loadtest
ENV PATH=/opt/tidegate/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    TIDEGATE_STATE_DIR=/var/lib/tidegate
USER 10001:10001
WORKDIR /var/lib/tidegate
STOPSIGNAL SIGTERM
# A command that ends; what serves with this image is checked where it is started.
HEALTHCHECK NONE
ENTRYPOINT ["tidegate"]
CMD ["--help"]
