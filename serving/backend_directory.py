"""The directory that Triton looks for backends in: its python backend, and ours under their native names."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from serving.distribution import TritonDistribution

BACKENDS = ("onnxruntime", "openvino", "pytorch", "tidegate_image")


def lay_out_backends(distribution: TritonDistribution, root: Path) -> Path:
    """Copy the backends into a directory named after their content.

    Triton refuses links that lead out of the directory, so that everything is copied. Servers that share `root` share
    the directory when they need the same files, and never see one that is half written.

    Args:
        root: Made where it is missing.

    Returns:
        The value for `--backend-directory`.
    """
    sources = _sources(distribution)
    directory = root / _digest(sources)
    if directory.is_dir():
        return directory
    root.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".staging-", dir=root))
    try:
        staging.chmod(0o755)
        for name, source in sources.items():
            target = staging / name
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(source, target)
            target.chmod(0o755 if source == distribution.stub else 0o644)
        _publish(staging, directory)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return directory


def _publish(staging: Path, directory: Path) -> None:
    try:
        os.rename(staging, directory)
    except OSError:
        # Another server was first with the same files.
        if not directory.is_dir():
            raise


def _sources(distribution: TritonDistribution) -> Mapping[str, Path]:
    ours = Path(__file__).parent / "backends"
    library = [path for path in distribution.python_backend.iterdir() if path.suffix in {".so", ".py"}]
    return {
        **{f"python/{path.name}": path for path in sorted(library)},
        f"python/{distribution.stub.name}": distribution.stub,
        **{f"{name}/model.py": ours / name / "model.py" for name in BACKENDS},
    }


def _digest(sources: Mapping[str, Path]) -> str:
    digest = hashlib.sha256()
    for name, path in sources.items():
        content = path.read_bytes()
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:16]
