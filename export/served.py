"""The model as it is served: pixels in, scores out."""

import torch
from torch import Tensor, nn

from contract.card import Preprocessing


class ServedModel(nn.Module):
    """A network with the card's normalisation folded in front, so that callers send a quarter of the bytes."""

    scale: Tensor
    shift: Tensor

    def __init__(self, network: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.network = network
        mean, std = torch.tensor(preprocessing.mean), torch.tensor(preprocessing.std)
        self.register_buffer("scale", (1 / (255 * std)).view(3, 1, 1))
        self.register_buffer("shift", (-mean / std).view(3, 1, 1))
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K), FP32, of images (N, H, W, 3), uint8, RGB, 0..255."""
        normalised = images.permute(0, 3, 1, 2).to(torch.float32) * self.scale + self.shift
        scores: Tensor = self.network(normalised)
        return scores
