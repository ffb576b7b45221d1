"""Photographs decoded and scaled where the model runs: JPEGs by nvJPEG, as far as it takes them."""

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.io import ImageReadMode, decode_jpeg

from contract.card import ImageLimits, Preprocessing
from serving.images import ImageRefused, checked, orientation, scaled_size

# To hold at once as uint8, of one picture as float32 too.
_MAX_PIXELS_AT_ONCE = 64_000_000
_END_OF_IMAGE = b"\xff\xd9"
_RGB_COMPONENTS = [ord(letter) for letter in "RGB"]


class DeviceDecoder:
    """Decodes the JPEGs of a batch on one device, to the pixels that `serving.images.prepare` makes, within rounding."""

    def __init__(self, device: str, preprocessing: Preprocessing, limits: ImageLimits) -> None:
        self._device = torch.device(device)
        self._preprocessing = preprocessing
        self._limits = limits

    def decode(self, files: Sequence[bytes]) -> list[Tensor | None]:
        """Decode what can be decoded here.

        Returns:
            For each file (height, width, 3), uint8, on the device; None where `prepare` is to decode or refuse it.
        """
        images: list[Tensor | None] = [None] * len(files)
        turns = {index: turn for index, file in enumerate(files) if (turn := self._accepted(file)) is not None}
        with torch.inference_mode():
            for group in _groups({index: pixels for index, (pixels, _) in turns.items()}):
                pictures = self._decode([files[index] for index in group])
                for index, picture in zip(group, pictures, strict=True):
                    if picture is not None:
                        images[index] = self._scaled(_upright(picture, turns[index][1]))
        return images

    def stack(self, images: Sequence[Any]) -> Tensor:
        """One batch on the device of what was decoded there and of arrays; (N, height, width, 3)."""
        tensors = [image if isinstance(image, Tensor) else torch.tensor(image) for image in images]
        return torch.stack([tensor.to(self._device) for tensor in tensors])

    def _accepted(self, file: bytes) -> tuple[int, int] | None:
        """The pixels to hold and the EXIF orientation of a JPEG that nvJPEG decodes as libjpeg does."""
        # Nothing says that nvJPEG refuses a file that lacks its end.
        if not file.endswith(_END_OF_IMAGE):
            return None
        try:
            with checked(file, self._limits) as image:
                # Of three components, and neither CMYK nor grey.
                if image.format not in ("JPEG", "MPO") or image.mode != "RGB":
                    return None
                colours = [component[0] for component in getattr(image, "layer", [])]
                if image.info.get("adobe_transform", 1) != 1 or colours == _RGB_COMPONENTS:
                    return None
                scaled = scaled_size(image.size, self._preprocessing)
                # Before scaling, between the axes and after it.
                pixels = max(prod(image.size), max(image.size) * max(scaled), prod(scaled))
                return (pixels, orientation(image)) if pixels <= _MAX_PIXELS_AT_ONCE else None
        except ImageRefused:
            return None

    def _decode(self, files: Sequence[bytes]) -> Sequence[Tensor | None]:
        encoded = [torch.frombuffer(bytearray(file), dtype=torch.uint8) for file in files]
        try:
            pictures: list[Tensor] = decode_jpeg(encoded, mode=ImageReadMode.RGB, device=self._device)
        except RuntimeError:
            # It does not say which.
            return [self._decode([file])[0] for file in files] if len(files) > 1 else [None]
        return pictures

    def _scaled(self, picture: Tensor) -> Tensor | None:
        """Scale (3, H, W) and cut its centre, as Pillow would; None where memory, or torch's kernel, does not suffice."""
        try:
            return self._scale(picture)
        except RuntimeError:
            return None

    def _scale(self, picture: Tensor) -> Tensor:
        wanted = self._preprocessing
        width, height = scaled_size((picture.shape[2], picture.shape[1]), wanted)
        # Pillow, too, rounds between the two.
        for axis, size in ((2, width), (1, height)):
            picture = _resampled(picture, axis, size, wanted.interpolation)
        top, left = (height - wanted.height) // 2, (width - wanted.width) // 2
        return picture[:, top : top + wanted.height, left : left + wanted.width].permute(1, 2, 0).contiguous()


def _resampled(picture: Tensor, axis: int, size: int, interpolation: str) -> Tensor:
    """Scale one axis of (3, H, W), uint8."""
    if picture.shape[axis] == size:
        return picture
    step = picture.shape[axis] / size
    if interpolation == "nearest":
        # Added up as Pillow does, because of the places that are just between two pixels.
        places = np.cumsum([step / 2, *[step] * (size - 1)]).astype(np.int64)
        return picture.index_select(axis, torch.from_numpy(places).to(picture.device))
    shape = [size if each == axis else picture.shape[each] for each in (1, 2)]
    scaled = interpolate(picture[None].float(), shape, mode=interpolation, antialias=True)[0]
    return scaled.clamp_(0, 255).round_().to(torch.uint8)


def _groups(pixels: dict[int, int]) -> Iterator[list[int]]:
    group: list[int] = []
    held = 0
    for index, size in pixels.items():
        if group and held + size > _MAX_PIXELS_AT_ONCE:
            yield group
            group, held = [], 0
        group.append(index)
        held += size
    if group:
        yield group


def _upright(picture: Tensor, turn: int) -> Tensor:
    """Turn (3, H, W) as its EXIF orientation says."""
    if turn in (5, 7):
        picture = picture.transpose(1, 2)
    quarters = {3: 2, 4: 2, 6: 3, 7: 2, 8: 1}.get(turn, 0)
    # Four is two upside down.
    if turn in (2, 4):
        picture = picture.flip(2)
    return torch.rot90(picture, quarters, (1, 2)) if quarters else picture
