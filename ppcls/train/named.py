"""What a recipe names: networks and weights."""

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

from ppcls.config.node import PathText
from ppcls.models.zoo import spec_of


def known_model(name: str) -> str:
    spec_of(name)  # raises with the near names
    return name


ModelName = Annotated[str, AfterValidator(known_model)]
# YAML's true is written as the word that `ppcls.weights.store` knows.
Weights = Annotated[PathText, BeforeValidator(lambda value: "true" if value is True else value)]
