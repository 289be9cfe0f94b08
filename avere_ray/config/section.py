"""What every section of the config tree is made of."""

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0.0)]
FromText = BeforeValidator(lambda text: int(text) if isinstance(text, str) and text.lstrip("-").isdigit() else text)
"""Lets a choice between whole numbers be given on the command line, where every value is text."""


class Section(BaseModel):
    """A branch of the config tree: frozen, unknown keys refused, docstrings are the help texts."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=())
