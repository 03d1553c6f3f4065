"""The registry of layers: every module of this folder that defines a `Layer` is in it."""

from importlib import import_module
from pkgutil import iter_modules
from typing import get_args

from pipeline.layers.base import Layer

__all__ = ["LAYERS", "Layer"]


def _collect() -> dict[str, type[Layer]]:
    for module in iter_modules(__path__):
        import_module(f"{__name__}.{module.name}")
    return {get_args(cls.model_fields["type"].annotation)[0]: cls for cls in Layer.__subclasses__()}


LAYERS: dict[str, type[Layer]] = _collect()
"""Layer classes by the ``type`` that a config writes."""
