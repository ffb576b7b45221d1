"""The Lightning module: a network, how it learns, and the card that travels with its weights."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

from lightning.pytorch import LightningModule
from lightning.pytorch.loggers import MLFlowLogger
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, optim
from torch.nn import functional

from contract.card import Card
from training.network import ConvNet


class ImageClassifier(LightningModule):
    """A classifier of images whose checkpoints hold plain data alone, so that loading one executes nothing.

    Args:
        card: What the checkpoint promises to serving; its labels set the number of classes.
        widths: Channels of the network's stages.
        learning_rate: The peak; it rises over the first tenth of the steps and falls to zero over the rest.
    """

    def __init__(self, card: Card, widths: Sequence[int], learning_rate: float, weight_decay: float) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["card"])
        self.card = card
        self.network = ConvNet(widths, len(card.labels))
        self._learning_rate = learning_rate
        self._weight_decay = weight_decay

    @classmethod
    def from_checkpoint(cls, checkpoint: Mapping[str, Any]) -> Self:
        """Rebuild a classifier, ready to infer, from what `torch.load` gives.

        Raises:
            KeyError: No card, hyperparameters or weights.
            TypeError: The hyperparameters are another class's.
            ValueError: The card is not one.
            RuntimeError: Layers are missing, left over, or of another shape.
        """
        classifier = cls(Card.model_validate(checkpoint["card"]), **checkpoint["hyper_parameters"])
        classifier.load_state_dict(checkpoint["state_dict"])
        return classifier.eval()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["card"] = self.card.model_dump(mode="json")
        checkpoint["run_id"] = self.logger.run_id if isinstance(self.logger, MLFlowLogger) else None

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K) of normalised images (N, 3, H, W)."""
        logits: Tensor = self.network(images)
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return self._evaluate("train", batch)

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        self._evaluate("validation", batch)

    def test_step(self, batch: tuple[Tensor, Tensor]) -> None:
        self._evaluate("test", batch)

    def _evaluate(self, part: str, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        logits = self(images)
        loss = functional.cross_entropy(logits, labels)
        accuracy = (logits.argmax(dim=1) == labels).float().mean()
        metrics = {f"{part}_loss": loss, f"{part}_accuracy": accuracy}
        self.log_dict(metrics, on_step=False, on_epoch=True, batch_size=len(labels))
        return loss

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = optim.AdamW(self.parameters(), lr=self._learning_rate, weight_decay=self._weight_decay)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = optim.lr_scheduler.OneCycleLR(optimizer, self._learning_rate, total_steps=steps, pct_start=0.1)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
