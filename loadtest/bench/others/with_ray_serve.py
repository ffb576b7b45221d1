"""Ray Serve, a replica a core, and batches."""

import os
import signal
import sys

import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

from loadtest.bench.others.classifier import batch_size, classifier

_CORES = len(os.sched_getaffinity(0))


class Files:
    def __init__(self) -> None:
        self._classifier = classifier()

    @serve.batch(max_batch_size=batch_size(), batch_wait_timeout_s=0.01)
    async def _answers(self, files: list[bytes]) -> list[str]:
        return self._classifier.answers(files)

    async def __call__(self, request: Request) -> Response:
        return Response(await self._answers(await request.body()), media_type="application/json")


if __name__ == "__main__":
    ray.init(num_cpus=_CORES, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1]), "access_log": False})
    deployed = serve.deployment(num_replicas=_CORES, max_ongoing_requests=16, ray_actor_options={"num_cpus": 1})
    serve.run(deployed(Files).bind(), route_prefix="/classify")
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
    ray.shutdown()
