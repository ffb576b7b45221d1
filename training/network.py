"""A small convolutional network."""

from collections.abc import Sequence

from torch import Tensor, nn


class ConvNet(nn.Module):
    """Stages of two 3×3 convolutions, halving the resolution between them, then the mean over what is left."""

    def __init__(self, widths: Sequence[int], classes: int) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        channels = 3
        for width in widths:
            if stages:
                stages.append(nn.MaxPool2d(2))
            stages += [*_convolution(channels, width), *_convolution(width, width)]
            channels = width
        self.features = nn.Sequential(*stages)
        self.head = nn.Linear(channels, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K) of normalised images (N, 3, H, W)."""
        features: Tensor = self.features(images)
        logits: Tensor = self.head(features.mean(dim=(2, 3)))
        return logits


def _convolution(channels: int, width: int) -> tuple[nn.Module, ...]:
    # The batch norm that follows has a bias of its own.
    return nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
