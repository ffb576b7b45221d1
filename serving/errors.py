"""The errors of the embedded Triton.

ServingError
├── DistributionMissing  there is no tritonserver this Python can run
└── TritonStartFailed    tritonserver exited, or was not ready in time
"""


class ServingError(Exception):
    """The embedded Triton cannot be run. The message says why, and what would help."""


class DistributionMissing(ServingError):
    """The wheel, its stub for this Python, or this Python's shared library is missing."""


class TritonStartFailed(ServingError):
    """Triton did not become ready. The message ends with the last errors of its log."""
