"""OpenVINO INT8: post-training quantisation of the FP32 IR with NNCF."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import openvino
from numpy.typing import NDArray

from contract.formats import Format
from contract.tensors import IMAGES
from export.errors import FormatFailed
from export.exporters import OpenVinoExporter, Run, failing
from export.served import ServedModel


class OpenVinoInt8Exporter:
    """Quantises weights and activations to 8 bits, with ranges measured on images.

    Args:
        calibration: (N, H, W, 3), of the kind the model will see, and not those it is judged on.
        fp32: The directory of the FP32 IR.
    """

    def __init__(self, calibration: NDArray[np.uint8], fp32: Path) -> None:
        self._calibration = calibration
        self._fp32 = fp32

    def export(self, served: ServedModel, example: NDArray[np.uint8], directory: Path) -> None:
        filename = Format.OPENVINO.filenames[0]
        if not (self._fp32 / filename).is_file():
            raise FormatFailed("there is no FP32 OpenVINO model to quantise")
        with failing(RuntimeError, ValueError), _nncf_in_use():
            import nncf

            model = openvino.Core().read_model(self._fp32 / filename)
            images = nncf.Dataset(list(self._calibration), lambda image: {IMAGES: image[None]})
            quantised = nncf.quantize(model, images, subset_size=len(self._calibration))
            openvino.save_model(quantised, directory / filename, compress_to_fp16=False)

    def load(self, directory: Path) -> Run:
        return OpenVinoExporter().load(directory)


@contextmanager
def _nncf_in_use() -> Iterator[None]:
    # Its own switch for not sending usage figures to its maker.
    os.environ.setdefault("NNCF_CI", "1")
    loggers = [logging.getLogger(name) for name in ("nncf", "torch.utils.cpp_extension")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        # It draws bars of its own, which have no switch.
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
