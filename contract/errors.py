"""The errors of the contract.

ContractError
├── ConfigInvalid      a config.pbtxt that Triton's message does not describe
├── ManifestInvalid    a manifest that is unreadable, or that an artifact contradicts
└── RepositoryInvalid  a repository, model or version that is not where it should be
"""


class ContractError(ValueError):
    """A promise of the repository is not kept. The message names the file and what was expected."""


class ConfigInvalid(ContractError):
    """A config.pbtxt does not parse."""


class ManifestInvalid(ContractError):
    """A manifest does not parse, or an artifact does not match its digest."""


class RepositoryInvalid(ContractError):
    """A path of the repository is missing or misnamed."""
