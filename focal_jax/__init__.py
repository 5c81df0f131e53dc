"""Depth from unaligned focal stacks in JAX and Flax.

import focal_jax
model = focal_jax.load()
out = model.predict(images, focus, fov)
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from focal_jax.api import ClassicalModel, Model, load
  from focal_jax.errors import InputError
  from focal_jax.prediction.predictor import Predictor
  from focal_jax.stack import FocalStack, Prediction

__all__ = ['ClassicalModel', 'FocalStack', 'InputError', 'Model', 'Prediction', 'Predictor', 'load']
__version__ = '0.2.0'

_MODULES = {
  'ClassicalModel': 'focal_jax.api',
  'FocalStack': 'focal_jax.stack',
  'InputError': 'focal_jax.errors',
  'Model': 'focal_jax.api',
  'Prediction': 'focal_jax.stack',
  'Predictor': 'focal_jax.prediction.predictor',
  'load': 'focal_jax.api',
}


def __getattr__(name: str) -> Any:
  # On first use: `focal-jax --help` imports this package too, and JAX takes seconds.
  if name not in _MODULES:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__})
