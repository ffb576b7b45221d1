"""The errors of an export. Each message is one line that says what to do.

ExportError
├── CheckpointInvalid     a source that is no model, does not fit its card, or that loading would execute
├── SourceFailed          a source elsewhere is not there, is too large, or its server does not give it
├── OptionsInvalid        what was asked for contradicts itself, or a field of tidegate.yaml is wrong
├── FormatFailed          one candidate could not be made, run, or trusted; the others go on
├── VerificationFailed    no images to verify on, or the format that is served by default failed
├── PublishFailed         the repository does not take the version
├── RepositoryFailed      the repository cannot be read or written, or holds what it should not
├── TrackingFailed        MLflow did not take the record of a version, which is published nonetheless
└── LiveCheckFailed       the running server does not answer the golden images
"""


class ExportError(Exception):
    """A checkpoint did not become a version."""


class CheckpointInvalid(ExportError):
    """The source cannot be loaded, or does not fit its card."""


class SourceFailed(ExportError):
    """The source could not be fetched."""


class OptionsInvalid(ExportError):
    """What was asked for cannot be done as it was asked."""


class FormatFailed(ExportError):
    """A candidate is dropped; the message is the reason, without the candidate's name."""


class VerificationFailed(ExportError):
    """What would be served does not agree with the checkpoint, or could not be compared with it."""


class PublishFailed(ExportError):
    """The repository holds another model of the name."""


class RepositoryFailed(ExportError):
    """The repository could not be read or written, or what was asked is not in it."""


class TrackingFailed(ExportError):
    """The export could not be logged."""


class LiveCheckFailed(ExportError):
    """The running server could not be compared with the checkpoint."""


def one_line(error: BaseException) -> str:
    """A library's message, which may run over many lines, on one."""
    return " ".join(str(error).split()) or type(error).__name__
