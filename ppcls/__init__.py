"""ppcls: PaddlePaddle-native image classification."""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ppcls.utils import environment

if TYPE_CHECKING:
    from ppcls.api import create_model, list_models
    from ppcls.inference.predictor import Predictor
    from ppcls.library import Classifier, Run, evaluate, export, load, train
    from ppcls.models.own import register_model
    from ppcls.prediction import draw_maps
    from ppcls.recipe import Recipe
    from ppcls.train.callbacks import Callback
    from ppcls.utils.errors import UserError
    from ppcls.utils.modules import use

__version__ = "0.1.0"
__all__ = [
    "Callback",
    "Classifier",
    "Predictor",
    "Recipe",
    "Run",
    "UserError",
    "create_model",
    "draw_maps",
    "evaluate",
    "export",
    "list_models",
    "load",
    "register_model",
    "train",
    "use",
]

# Where each of them is: it is imported when first used, for `import ppcls` imports no paddle.
HOMES = {
    "Callback": "ppcls.train.callbacks",
    "Classifier": "ppcls.library",
    "Predictor": "ppcls.prediction",
    "Recipe": "ppcls.recipe",
    "Run": "ppcls.library",
    "UserError": "ppcls.utils.errors",
    "create_model": "ppcls.api",
    "draw_maps": "ppcls.prediction",
    "evaluate": "ppcls.library",
    "export": "ppcls.library",
    "list_models": "ppcls.api",
    "load": "ppcls.library",
    "register_model": "ppcls.models.own",
    "train": "ppcls.library",
    "use": "ppcls.utils.modules",
}

environment.prepare()


def __getattr__(name: str) -> Any:
    """The public names, imported when first used."""
    if name not in HOMES:
        raise AttributeError(f"module 'ppcls' has no attribute {name!r}")
    value = getattr(import_module(HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


class Package(ModuleType):
    """This package: `ppcls.train` and `ppcls.export` are functions, whatever is imported.

    Python would put the modules of these names in their place when they are imported.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = Package
