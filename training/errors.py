"""The errors of a training run. Each message is one line that says what to do.

TrainingError
├── DataInvalid           the file of images is missing or holds something else
└── TrackingFailed        MLflow does not answer, or refuses the record
"""


class TrainingError(Exception):
    """A run did not end as it should."""


class DataInvalid(TrainingError):
    """There is nothing to train on."""


class TrackingFailed(TrainingError):
    """The run could not be recorded or registered."""
