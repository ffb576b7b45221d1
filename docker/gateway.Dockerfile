# syntax=docker/dockerfile:1
# The gateway: no Triton, no inference engine, no PyTorch. Built from the repository's root:
#   docker build --file docker/gateway.Dockerfile --tag tidegate/gateway .
# To pin the base by digest: --build-arg PYTHON_IMAGE=python:3.12-slim-bookworm@sha256:…
ARG PYTHON_IMAGE=python:3.12-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
COPY requirements/serve.txt requirements/
# Each of the three left out is a block of lines that ends where no backslash does.
RUN python3 -m venv /opt/tidegate \
    && sed '/^\(nvidia-pytriton\|onnxruntime\|openvino\)==/,/[^\\]$/d' requirements/serve.txt > requirements/gateway.txt \
    && /opt/tidegate/bin/pip install --no-cache-dir --no-deps --require-hashes --requirement requirements/gateway.txt
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
EXPOSE 8000 8001 8002
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python3", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/v2/health/ready', timeout=2)"]
ENTRYPOINT ["tidegate"]
CMD ["gateway"]
