"""FastAPI with the model in its process, as many requests at once as there are cores, and no batches."""

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio.to_thread
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool

from loadtest.bench.others.classifier import classifier

_CORES = len(os.sched_getaffinity(0))
_classifier = classifier(streams=_CORES)


@asynccontextmanager
async def _threads(app: FastAPI) -> AsyncIterator[None]:
    anyio.to_thread.current_default_thread_limiter().total_tokens = _CORES
    yield


app = FastAPI(lifespan=_threads)


@app.post("/classify")
async def classify(request: Request) -> Response:
    (answer,) = await run_in_threadpool(_classifier.answers, [await request.body()])
    return Response(answer, media_type="application/json")


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", access_log=False)
