"""The tritonserver that the wheel `nvidia-pytriton` carries."""

import ctypes
import sys
import sysconfig
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from serving.errors import DistributionMissing


@dataclass(frozen=True, slots=True)
class TritonDistribution:
    """Where the parts of Triton lie; nothing in these places is written to.

    Attributes:
        binary: The server.
        python_backend: The directory of `libtriton_python.so`.
        stub: The interpreter of python models, for the Python that runs.
        library_dirs: What the loader must search for the server and the stub.
    """

    binary: Path
    python_backend: Path
    stub: Path
    library_dirs: tuple[Path, ...]


def find_distribution() -> TritonDistribution:
    """Find Triton in the environment that runs.

    Raises:
        DistributionMissing: A part is missing; the message names it.
    """
    # find_spec does not import the package, whose own imports are slow.
    spec = find_spec("pytriton")
    if spec is None or not spec.submodule_search_locations:
        raise DistributionMissing("the package nvidia-pytriton, which carries tritonserver, is not installed")
    package = Path(spec.submodule_search_locations[0])
    server = package / "tritonserver"
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = server / "python_backend_stubs" / python / "triton_python_backend_stub"
    if not stub.is_file():
        raise DistributionMissing(f"nvidia-pytriton has no stub for Python {python}: {stub} is missing")
    binary = server / "bin" / "tritonserver"
    if not binary.is_file():
        raise DistributionMissing(f"nvidia-pytriton has no server for this platform: {binary} is missing")
    return TritonDistribution(
        binary=binary,
        python_backend=server / "backends" / "python",
        stub=stub,
        library_dirs=(*_libpython_dirs(python), package.parent / "nvidia_pytriton.libs"),
    )


def _libpython_dirs(python: str) -> tuple[Path, ...]:
    name = f"libpython{python}.so.1.0"
    library_dir = Path(sysconfig.get_config_var("LIBDIR"))
    if (library_dir / name).is_file():
        return (library_dir,)
    try:
        ctypes.CDLL(name)
    except OSError as error:
        raise DistributionMissing(
            f"Triton's python backend needs {name}, which is neither in {library_dir} nor on the loader's path: "
            f"install this Python's shared library (Debian: libpython{python})"
        ) from error
    return ()
