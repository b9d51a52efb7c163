"""ppcls: PaddlePaddle-native image classification."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ppcls.utils import environment

if TYPE_CHECKING:
    from ppcls.api import create_model, list_models
    from ppcls.inference.predictor import Predictor
    from ppcls.models.own import register_model

__version__ = "0.1.0"
__all__ = ["Predictor", "create_model", "list_models", "register_model"]

environment.prepare()


def __getattr__(name: str) -> Any:
    """The public names, imported when first used: `import ppcls` imports no paddle."""
    if name == "Predictor":
        return import_module("ppcls.prediction").Predictor
    if name == "register_model":
        from ppcls.models.own import register_model

        return register_model
    if name in __all__:
        from ppcls import api

        return getattr(api, name)
    raise AttributeError(f"module 'ppcls' has no attribute {name!r}")
