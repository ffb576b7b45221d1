"""What Triton offers to its operator: answered with the reason why it is not offered here."""

from fastapi import APIRouter
from starlette.requests import Request

from gateway.rest.door import DoorDep

router = APIRouter(prefix="/v2", include_in_schema=False)

_BOTH = ["GET", "POST"]


@router.api_route("/systemsharedmemory/{rest:path}", methods=_BOTH)
async def system_shared_memory(request: Request, door: DoorDep) -> None:
    """Status, register and unregister."""
    await door.operate(request, "SystemSharedMemoryStatus", b"")


@router.api_route("/cudasharedmemory/{rest:path}", methods=_BOTH)
async def cuda_shared_memory(request: Request, door: DoorDep) -> None:
    """Status, register and unregister."""
    await door.operate(request, "CudaSharedMemoryStatus", b"")


@router.api_route("/trace/setting", methods=_BOTH)
@router.api_route("/models/{model}/trace/setting", methods=_BOTH)
async def trace_setting(request: Request, door: DoorDep) -> None:
    """Of the server or a model."""
    await door.operate(request, "TraceSetting", b"")


@router.api_route("/logging", methods=_BOTH)
async def logging(request: Request, door: DoorDep) -> None:
    """Of the server."""
    await door.operate(request, "LogSettings", b"")
