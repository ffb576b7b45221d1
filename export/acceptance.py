"""Whether a published version is fit to serve, the last stage of `dvc repro`: `python -m export.acceptance --help`."""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from contract.errors import ContractError
from contract.manifest import Manifest
from contract.repository import ModelRepository
from export.errors import ExportError, VerificationFailed
from export.exporters import EXPORTERS
from export.load import held_out_images


def accept(repository: ModelRepository, name: str, min_accuracy: float) -> dict[str, float]:
    """Compare the newest version's files with their digests, and run the one that is served on the held-out images.

    Returns:
        The accuracy of the files, and of the eager model they were made from where that is known, 0..1.

    Raises:
        ManifestInvalid: The manifest is missing or unreadable, or a file is not the one it records.
        VerificationFailed: There is no version, there are no labelled images for it, or it is less accurate.
    """
    versions = repository.versions(name)
    if not versions:
        raise VerificationFailed(f"{repository.root / name}: no version; export one")
    manifest = Manifest.read(repository.manifest(name, versions[-1]))
    manifest.check(repository.root)
    held_out = held_out_images(name)
    if held_out is None:
        raise VerificationFailed(f"{name}: no labelled images are known for it")
    if manifest.served is None:
        raise VerificationFailed(f"{name} {versions[-1]}: the manifest names no candidate that is served")
    run = EXPORTERS[manifest.served].load(repository.version_dir(name, versions[-1]))
    batch_size = manifest.card.batching.max_batch_size
    batches = [held_out.images[start : start + batch_size] for start in range(0, len(held_out.images), batch_size)]
    accuracy = held_out.accuracy(np.concatenate([run(batch) for batch in batches]))
    if accuracy is None or accuracy < min_accuracy:
        raise VerificationFailed(f"{name} {versions[-1]}: accuracy is {accuracy}, less than {min_accuracy}")
    eager = {} if manifest.test_accuracy is None else {"eager_accuracy": manifest.test_accuracy}
    return {"accuracy": accuracy, **eager}


def main() -> None:
    """Write the figures; a version that is not fit is one line on standard error."""
    parser = argparse.ArgumentParser(prog="python -m export.acceptance", description="Accept or refuse a version.")
    parser.add_argument("repository", type=Path)
    parser.add_argument("model")
    parser.add_argument("--min-accuracy", type=float, required=True, help="of the format that is served, 0..1")
    parser.add_argument("--metrics", type=Path, required=True, help="the JSON file to write the figures to")
    given = parser.parse_args()
    try:
        figures = accept(ModelRepository(given.repository), given.model, given.min_accuracy)
    except (ContractError, ExportError) as error:
        sys.exit(f"export.acceptance: {error}")
    given.metrics.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
