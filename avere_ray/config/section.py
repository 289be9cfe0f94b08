"""What every section of the config tree is made of."""

from typing import Annotated, Any, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0.0)]
FromText = BeforeValidator(lambda text: int(text) if isinstance(text, str) and text.lstrip("-").isdigit() else text)
"""Lets a choice between whole numbers be given on the command line, where every value is text."""


class StrictNumbers(BaseModel):
    """Takes no true or false for a number, where Python would count 1 and 0. Text stays allowed: a command line has
    nothing else."""

    @field_validator("*", mode="before")
    @classmethod
    def _no_bool_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        given, field = value if isinstance(value, list | tuple) else [value], cls.model_fields[info.field_name or ""]
        if any(isinstance(one, bool) for one in given) and _is_number(field.annotation):
            raise PydanticCustomError("bool_for_number", "Input should be a number, not true or false")
        return value


class Section(StrictNumbers):
    """A branch of the config tree: frozen, unknown keys refused, docstrings are the help texts."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=())


def _is_number(annotation: Any) -> bool:
    """Whether a setting takes numbers, alone or as a list, and no true or false."""
    kinds = set(_kinds(annotation))
    return bool(kinds & {int, float}) and bool not in kinds


def _kinds(annotation: Any) -> list[type]:
    """The types that an annotation is made of; of a choice those of its values."""
    parts = get_args(annotation)
    if parts:
        return [kind for part in parts for kind in _kinds(part)]
    return [annotation if isinstance(annotation, type) else type(annotation)]
