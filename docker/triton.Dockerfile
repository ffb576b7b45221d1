# syntax=docker/dockerfile:1
# NVIDIA's Triton with its native backends, and `tidegate_image` beside them for photographs. Built from the repository's root:
#   docker build --file docker/triton.Dockerfile --tag tidegate/triton .
# To pin by digest: --build-arg TRITON_IMAGE=nvcr.io/nvidia/tritonserver:26.08-py3@sha256:… (PYTHON_IMAGE likewise). Take the
# newest release: it has the security fixes. The Python of both images must be of one version.
ARG TRITON_IMAGE=nvcr.io/nvidia/tritonserver:26.08-py3
ARG PYTHON_IMAGE=python:3.12-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
COPY requirements/serve.txt requirements/
RUN sed '/^\(nvidia-pytriton\|onnxruntime\|openvino\)==/,/[^\\]$/d' requirements/serve.txt > requirements/backend.txt \
    && pip install --no-cache-dir --no-deps --require-hashes --requirement requirements/backend.txt --target /opt/tidegate
COPY . .
RUN pip install --no-cache-dir --no-deps --target /opt/tidegate .

FROM ${TRITON_IMAGE}
COPY --from=build /opt/tidegate /opt/tidegate
COPY serving/backends/tidegate_image/model.py /opt/tritonserver/backends/tidegate_image/model.py
ENV PYTHONPATH=/opt/tidegate \
    PYTHONDONTWRITEBYTECODE=1
USER 1000:1000
EXPOSE 8001 8002
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=600s --retries=3 \
    CMD ["python3", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8002/metrics', timeout=2)"]
# No HTTP: the gateway needs gRPC and the metrics alone.
ENTRYPOINT ["tritonserver", "--allow-http=false", "--grpc-port=8001", "--metrics-port=8002", \
    "--model-control-mode=explicit", "--load-model=*", "--exit-on-error=false", "--strict-readiness=false", \
    "--exit-timeout-secs=20"]
CMD ["--model-repository=/models", "--model-config-name=gpu", "--grpc-http2-min-recv-ping-interval-without-data=1000"]
