"""What the users of a load test ask for, from the environment."""

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class LoadSettings(BaseSettings):
    """`TIDEGATE_LOAD_MODEL` and so on.

    Attributes:
        key: An API key with the scope `infer`.
        model: A model that takes image tensors.
        batch_size: Images in one request.
        deadline_s: Of each request.
        distinct: Different requests that a user sends, in turn: 1 is answered from the cache, where the model allows it.
    """

    model_config = SettingsConfigDict(env_prefix="TIDEGATE_LOAD_", frozen=True)

    key: SecretStr
    model: str = "digits"
    batch_size: int = Field(default=1, ge=1, le=1_024)
    deadline_s: float = Field(default=10.0, gt=0, le=600)
    distinct: int = Field(default=256, ge=1, le=100_000)
