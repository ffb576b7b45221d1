"""One training run: fit, keep the best epoch, measure it, and record all of it in MLflow."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import MLFlowLogger

from training.classifier import ImageClassifier
from training.digits import NAME, DigitsDataModule
from training.images import LabelledImages
from training.quiet import quiet
from training.settings import TrainingSettings
from training.tracking import mlflow_logger, register, tracked


@dataclass(frozen=True, slots=True)
class Epoch:
    """An epoch that ended.

    Attributes:
        number: From 1.
        of: How many there are at most; training may stop before.
        validation_accuracy: 0..1.
    """

    number: int
    of: int
    validation_accuracy: float


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What a run left behind.

    Attributes:
        test_accuracy: Of the best epoch on the held-out images, 0..1.
        run_id: MLflow's.
        registered: The version in MLflow's registry, as `tidegate export` takes it; None: it was not asked for.
    """

    checkpoint: Path
    test_accuracy: float
    run_id: str
    registered: str | None


def train_digits(settings: TrainingSettings, on_epoch: Callable[[Epoch], None]) -> TrainingResult:
    """Train the digits classifier and write its checkpoint: weights, card and hyperparameters, no optimizer state.

    Raises:
        DataInvalid: The settings name a file that holds no images.
        TrackingFailed: MLflow did not take the record. A checkpoint that was finished before stays where it is.
    """
    images = None if settings.data is None else LabelledImages.load(settings.data)
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    settings.output.parent.mkdir(parents=True, exist_ok=True)
    scratch_dir = TemporaryDirectory(prefix=".training-", dir=settings.output.parent)
    with quiet(), tracked(settings.tracking_uri), scratch_dir as scratch:
        seed_everything(settings.seed, verbose=False)
        data = DigitsDataModule(settings.batch_size, settings.validation_share, settings.seed, images)
        classifier = ImageClassifier(data.card, settings.widths, settings.learning_rate, settings.weight_decay)
        logger = mlflow_logger(settings)
        best = ModelCheckpoint(scratch, filename=NAME, monitor="validation_loss", save_weights_only=True)
        trainer = _trainer(settings, logger, [best, _Reporter(on_epoch)])
        logger.log_hyperparams(settings.model_dump(mode="json", include={"seed", "max_epochs", "patience"}))
        trainer.fit(classifier, data)
        (metrics,) = trainer.test(classifier, data, ckpt_path="best", weights_only=True, verbose=False)
        Path(best.best_model_path).replace(settings.output)
        run_id, client = str(logger.run_id), logger.experiment
        client.log_artifact(run_id, str(settings.output))
        registered = None
        if settings.register_as is not None:
            registered = register(client, run_id, settings.output.name, settings.register_as, settings.register_alias)
    return TrainingResult(settings.output, float(metrics["test_accuracy"]), run_id, registered)


def _trainer(settings: TrainingSettings, logger: MLFlowLogger, callbacks: list[Callback]) -> Trainer:
    return Trainer(
        accelerator=settings.accelerator,
        devices=1,
        max_epochs=settings.max_epochs,
        deterministic=True,
        logger=logger,
        callbacks=[EarlyStopping("validation_loss", patience=settings.patience), *callbacks],
        default_root_dir=settings.state_dir,
        log_every_n_steps=1,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


class _Reporter(Callback):
    def __init__(self, on_epoch: Callable[[Epoch], None]) -> None:
        self._on_epoch = on_epoch

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        accuracy = float(trainer.callback_metrics["validation_accuracy"])
        self._on_epoch(Epoch(trainer.current_epoch + 1, trainer.max_epochs or 0, accuracy))
