from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer

from contract.card import Card
from training.classifier import ImageClassifier
from training.digits import DigitsDataModule, digits_card, split_digits

CHECKPOINT = Path(__file__).parents[1] / "data" / "digits.ckpt"


@pytest.fixture
def classifier() -> ImageClassifier:
    return ImageClassifier(digits_card(split_digits()[0]), widths=(4, 8), learning_rate=1e-3, weight_decay=0.0)


def test_card_travels_in_a_checkpoint_of_plain_data(classifier: ImageClassifier, tmp_path: Path) -> None:
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        default_root_dir=tmp_path,
        enable_model_summary=False,
    )
    trainer.strategy.connect(classifier)
    trainer.save_checkpoint(tmp_path / "one.ckpt", weights_only=True)
    content = torch.load(tmp_path / "one.ckpt", weights_only=True)
    assert Card.model_validate(content["card"]) == classifier.card
    assert content["run_id"] is None

    restored = ImageClassifier.from_checkpoint(content)
    images = torch.rand(3, 3, 32, 32)
    assert torch.equal(restored(images), classifier.eval()(images))


def test_scores_have_a_column_per_label(classifier: ImageClassifier) -> None:
    assert classifier(torch.rand(5, 3, 32, 32)).shape == (5, 10)


def test_committed_checkpoint_is_small_and_accurate_on_the_test_images() -> None:
    assert CHECKPOINT.stat().st_size < 500_000
    classifier = ImageClassifier.from_checkpoint(torch.load(CHECKPOINT, weights_only=True))
    correct = 0
    with torch.inference_mode():
        for images, labels in DigitsDataModule(batch_size=120, validation_share=0.1, seed=0).test_dataloader():
            correct += int((classifier(images).argmax(dim=1) == labels).sum())
    assert correct / 360 >= 0.98
