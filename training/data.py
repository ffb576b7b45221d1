"""Writes the digits to a file, the first stage of `dvc repro`: `python -m training.data FILE`."""

import argparse
from pathlib import Path

from training.digits import digits


def main() -> None:
    """Write the file, and the folder it goes into."""
    parser = argparse.ArgumentParser(prog="python -m training.data", description="Write the digits and their classes.")
    parser.add_argument("file", type=Path, help="an .npz of images (N, 32, 32, 3), uint8, and labels (N,)")
    path: Path = parser.parse_args().file
    path.parent.mkdir(parents=True, exist_ok=True)
    digits().save(path)


if __name__ == "__main__":
    main()
