"""What every mapping of the YAML file is: strict, frozen, without unknown keys."""

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator


class Section(BaseModel):
    """A mapping of the YAML file. One with nothing below it has all its defaults."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _empty_is_all_defaults(cls, value: Any) -> Any:
        return {} if value is None else value
